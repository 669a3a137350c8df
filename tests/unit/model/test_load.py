import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from transformers import AutoConfig, HyperCLOVAXConfig, HyperCLOVAXForCausalLM, LlamaForCausalLM, T5Config

from loralab.config.model import ModelConfig, QuantConfig
from loralab.errors import ConfigError, ModelError
from loralab.model.load import check_length, load_base, load_config, skeleton
from loralab.model.tokenizer import load_tokenizer


def test_a_skeleton_has_the_modules_and_no_weights(tiny_model_dir: Path) -> None:
    model = skeleton(ModelConfig(path=str(tiny_model_dir)), AutoConfig.from_pretrained(tiny_model_dir))
    assert "model.layers.1.mlp.up_proj" in dict(model.named_modules())
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(ModelError, match="model=t5 is not a causal language model"):
        skeleton(ModelConfig(name="t5", path="t5"), T5Config())


def test_length_is_checked_against_the_models_positions(tiny_model_dir: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_model_dir)
    check_length(config, 256)
    with pytest.raises(
        ConfigError, match=r"data.max_length=257 is longer than the model allows: use 256 or less"
    ):
        check_length(config, 257)


def test_a_damaged_weight_file_is_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    for file in tiny_model_dir.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(
            content[: len(content) // 2] if "safetensors" in file.name else content
        )
    with pytest.raises(ModelError, match=f"the weights of {tmp_path} are damaged or not whole"):
        load_base(
            ModelConfig(path=str(tmp_path)), QuantConfig(name="none"), torch.device("cpu"), torch.float32
        )


def changed(source: Path, target: Path, **settings: object) -> ModelConfig:
    """Copies a model folder with other settings in its config.json."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    described = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(described | settings))
    return ModelConfig(path=str(target))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hidden_size": 128}, "have other shapes than its config.json says"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            r"says that its weights are quantized \(bitsandbytes fp4\), and they are not. Take",
        ),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            r"says that its weights are quantized \(bitsandbytes int8\), and they are not. Take",
        ),
    ],
    ids=["shapes", "four_bits", "int8"],
)
def test_a_config_that_tells_of_other_weights_is_refused(
    tiny_model_dir: Path, tmp_path: Path, settings: dict[str, object], says: str
) -> None:
    config = changed(tiny_model_dir, tmp_path, **settings)
    with pytest.raises(ModelError, match=says):
        load_base(config, QuantConfig(name="nf4"), torch.device("cpu"), torch.float32)


def test_a_config_with_a_value_that_means_nothing_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = changed(tiny_model_dir, tmp_path, dtype="float99")
    with pytest.raises(ModelError, match=r"is no description of a model: .*float99"):
        load_config(config)


def test_weights_that_are_missing_are_not_made_up(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model_dir)
    weights = {name: value for name, value in model.state_dict().items() if "1.mlp.up_proj" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(
        ModelError, match=r"lacks weights of the model: model.layers.1.mlp.up_proj.weight\. They"
    ):
        load_base(
            ModelConfig(path=str(tmp_path)), QuantConfig(name="none"), torch.device("cpu"), torch.float32
        )


def test_the_attention_is_the_one_that_was_chosen(tiny_model_dir: Path) -> None:
    for attention, expected in (("auto", "sdpa"), ("eager", "eager")):
        config = ModelConfig(path=str(tiny_model_dir), attention=attention)
        model = load_base(config, QuantConfig(name="none"), torch.device("cpu"), torch.float32)
        assert model.config._attn_implementation == expected


def test_layers_to_skip_stay_in_full(tiny_model_dir: Path) -> None:
    quant = QuantConfig(name="nf4", skip_modules=["down_proj"])
    model = load_base(ModelConfig(path=str(tiny_model_dir)), quant, torch.device("cpu"), torch.float32)
    layer = model.get_submodule("model.layers.1.mlp")
    assert type(layer.down_proj) is torch.nn.Linear
    assert isinstance(layer.up_proj, Linear4bit)


@pytest.mark.parametrize("load", [load_config, load_tokenizer])
def test_a_config_with_a_wrong_type_is_refused_in_a_line(load: Callable, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_attention_heads": "32"}))
    with pytest.raises(
        ModelError, match=r"config.json of .* 'num_attention_heads' expected int, got str \(value: '32'\)$"
    ):
        load(ModelConfig(path=str(tmp_path)))


def test_a_model_with_logits_of_its_own_kind_is_refused(tmp_path: Path) -> None:
    config = HyperCLOVAXConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        logits_scaling=2.0, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    HyperCLOVAXForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="models of type 'hyperclovax' turn hidden states into logits"):
        load_base(
            ModelConfig(path=str(tmp_path)), QuantConfig(name="none"), torch.device("cpu"), torch.float32
        )
