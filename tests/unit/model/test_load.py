from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, PreTrainedTokenizerBase, T5Config

from loralab.config.schema import ModelConfig, QuantConfig
from loralab.errors import ConfigError, ModelError
from loralab.model.load import check_length, load_base, load_tokenizer, model_location, skeleton


def test_a_skeleton_has_the_modules_and_no_weights(tiny_model_dir: Path) -> None:
    model = skeleton(ModelConfig(path=str(tiny_model_dir)), AutoConfig.from_pretrained(tiny_model_dir))
    assert "model.layers.1.mlp.up_proj" in dict(model.named_modules())
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(ModelError, match="model=t5 is not a causal language model"):
        skeleton(ModelConfig(name="t5", path="t5"), T5Config())


def test_a_missing_folder_names_its_closest_sibling(tiny_model_dir: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a folder. Did you mean 'tiny-llama'"):
        model_location(ModelConfig(path=str(tiny_model_dir.parent / "tiny-lama")))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config.json"):
        model_location(ModelConfig(path=str(tmp_path)))


def test_length_is_checked_against_the_models_positions(tiny_model_dir: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_model_dir)
    check_length(config, 256)
    with pytest.raises(
        ConfigError, match=r"data.max_length=257 is longer than the model allows: use 256 or less"
    ):
        check_length(config, 257)


def test_a_missing_padding_token_is_taken_from_what_there_is(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text((tiny_model_dir / "config.json").read_text())
    bare = type(tokenizer).from_pretrained(tiny_model_dir)
    bare.pad_token = None
    bare.save_pretrained(tmp_path)
    loaded = load_tokenizer(ModelConfig(path=str(tmp_path)))
    assert (loaded.pad_token, loaded.eos_token) == ("<|im_end|>", "<|im_end|>")


def test_a_damaged_weight_file_is_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    for file in tiny_model_dir.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(
            content[: len(content) // 2] if "safetensors" in file.name else content
        )
    with pytest.raises(ModelError, match=f"{tmp_path} cannot be loaded"):
        load_base(
            ModelConfig(path=str(tmp_path)), QuantConfig(name="none"), torch.device("cpu"), torch.float32
        )
