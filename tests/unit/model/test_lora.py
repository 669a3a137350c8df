from pathlib import Path

import peft
import pytest
import torch
from tests.unit.model import tiny_models
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.errors import ConfigError, ModelError
from loralab.model.adapters.context import AdapterContext
from loralab.model.load import load_base
from loralab.model.lora import (
    attach_adapter,
    cast_adapter,
    check_adapter,
    load_adapter,
    save_adapter,
    trainable,
)

CPU = torch.device("cpu")


def load(tiny_model_dir: Path, quant: str = "none"):
    return load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name=quant), CPU, torch.float32)


def test_new_adapter_changes_nothing_and_is_seeded(tiny_model_dir: Path) -> None:
    ids = torch.arange(10)[None]
    base = load(tiny_model_dir)
    expected = base(input_ids=ids).logits
    adapted = attach_adapter(base, LoraConfig(r=4), seed=3)
    torch.testing.assert_close(adapted(input_ids=ids).logits, expected, rtol=0, atol=0)
    again = attach_adapter(load(tiny_model_dir), LoraConfig(r=4), seed=3)
    other = attach_adapter(load(tiny_model_dir), LoraConfig(r=4), seed=4)
    first, same, different = (trainable(model) for model in (adapted, again, other))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], different[name]) for name in first)


def test_update_is_scaled_by_alpha_over_rank(tiny_model_dir: Path) -> None:
    layer_name = "model.layers.0.self_attn.q_proj"
    adapted = attach_adapter(load(tiny_model_dir), LoraConfig(r=4, alpha=6.0, targets=["q_proj"]), 0)
    layer = adapted.get_base_model().get_submodule(layer_name)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(up)
    inputs = torch.randn(3, 64)
    expected = inputs @ layer.base_layer.weight.T + (6.0 / 4) * (inputs @ down.T @ up.T)
    torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_saved_adapter_opens_with_plain_peft_and_ours(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    adapted = attach_adapter(load(tiny_model_dir), LoraConfig(r=4), 0).eval()
    for parameter in trainable(adapted).values():
        torch.nn.init.normal_(parameter, std=0.1)
    weights = {name: parameter.detach().clone() for name, parameter in trainable(adapted).items()}
    save_adapter(adapted, tokenizer, weights, tmp_path)
    ids = torch.arange(12)[None]
    expected = adapted(input_ids=ids).logits
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    plain = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)
    ours = load_adapter(load(tiny_model_dir), tmp_path, torch.float32)
    torch.testing.assert_close(ours(input_ids=ids).logits, expected, rtol=0, atol=0)
    assert (tmp_path / "chat_template.jinja").is_file()
    assert not trainable(ours)


def test_a_folder_without_adapter_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no adapter"):
        load_adapter(load(tiny_model_dir), tmp_path, torch.float32)


def test_an_adapter_of_another_base_is_refused(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    adapted = attach_adapter(load(tiny_model_dir), LoraConfig(r=4), 0)
    weights = {name: parameter.detach() for name, parameter in trainable(adapted).items()}
    save_adapter(adapted, tokenizer, weights, tmp_path / "adapter")
    wider = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2,
        )
    )  # fmt: skip
    wider.save_pretrained(tmp_path / "wider" / tiny_model_dir.name)
    with pytest.raises(ModelError, match=r"down_proj has 128 inputs there, 256 here"):
        load_adapter(load(tmp_path / "wider" / tiny_model_dir.name), tmp_path / "adapter", torch.float32)


def test_an_adapter_that_fits_no_layer_is_looked_up_before_weights_load() -> None:
    tree = LlamaForCausalLM(
        LlamaConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=50)
    )
    found = check_adapter(tree, LoraConfig(r=4, targets=["q_proj"]))
    assert found is not None
    assert found.summary == "q_proj x 1"
    for method in ("lora", "adalora", "vera", "ia3"):
        with pytest.raises(ConfigError, match="'q_prj' matches no linear layer"):
            check_adapter(tree, LoraConfig(method=method, targets=["q_prj"]))
    assert check_adapter(tree, LoraConfig(method="prompt")) is None


def test_what_is_cast_is_what_trains(tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    lora = LoraConfig(r=4, modules_to_save=["norm", "lm_head"], trainable_tokens=["<|im_end|>"])
    adapted = attach_adapter(load(tiny_model_dir), lora, 0, AdapterContext(tokenizer=tokenizer))
    names = trainable(adapted)
    assert any("trainable_tokens_delta" in name for name in names)
    assert any("lm_head.modules_to_save" in name for name in names)
    cast_adapter(adapted, torch.bfloat16)
    assert {parameter.dtype for parameter in names.values()} == {torch.bfloat16}
    frozen = [parameter for parameter in adapted.parameters() if not parameter.requires_grad]
    assert {parameter.dtype for parameter in frozen} == {torch.float32}


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        # Keys and values have 2 heads of 8.
        ({"r": 12, "initial_rank": 17}, r"lora.initial_rank=17 is above the width of .*k_proj \(16\)"),
        ({"r": 12}, r"lora.initial_rank=null is 18 for lora.r=12, which is above .*k_proj \(16\)"),
    ],
)
def test_adalora_starts_with_no_rank_above_a_layers_width(ranks: dict[str, int], message: str) -> None:
    model = tiny_models.build("llama")
    with pytest.raises(ConfigError, match=message):
        check_adapter(model, LoraConfig(method="adalora", **ranks))
    with pytest.raises(ConfigError, match=message):
        attach_adapter(model, LoraConfig(method="adalora", **ranks), 0, AdapterContext(total_steps=10))
    assert check_adapter(model, LoraConfig(method="adalora", r=12, initial_rank=16)) is not None


def test_vera_may_have_a_rank_above_a_layers_width() -> None:
    assert check_adapter(tiny_models.build("llama"), LoraConfig(method="vera", r=256)) is not None
