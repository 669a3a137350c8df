from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from loralab.config.model import LoraConfig
from loralab.model.adapters.vera import fixed_projections
from loralab.model.lora import attach_adapter, save_adapter, trainable

CONFIG = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
)


def adapt(seed: int, **lora: object):
    torch.manual_seed(0)
    return attach_adapter(LlamaForCausalLM(CONFIG), LoraConfig(method="vera", r=4, **lora), seed)  # type: ignore[arg-type]


def test_layers_of_different_shapes_share_one_pair_as_large_as_the_widest() -> None:
    model = adapt(0, targets=["q_proj", "up_proj", "down_proj"])
    shapes = {name: tuple(matrix.shape) for name, matrix in fixed_projections(model).items()}
    assert shapes == {"base_model.vera_A.default": (4, 64), "base_model.vera_B.default": (64, 4)}
    # Each layer learns 4 numbers, and one for each of its outputs: 32, 64 and 32.
    assert sum(value.numel() for value in trainable(model).values()) == 2 * (3 * 4 + 32 + 64 + 32)


def test_the_seed_decides_the_projections() -> None:
    first, same, other = adapt(3), adapt(3), adapt(4)
    for name, matrix in fixed_projections(first).items():
        assert torch.equal(matrix, fixed_projections(same)[name])
        assert not torch.equal(matrix, fixed_projections(other)[name])


def test_the_projections_are_saved_with_the_adapter(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = adapt(0)
    save_adapter(
        model, tokenizer, {name: value.detach() for name, value in trainable(model).items()}, tmp_path
    )
    saved = load_file(tmp_path / "adapter_model.safetensors")
    for name, matrix in fixed_projections(model).items():
        assert torch.equal(saved[name.removesuffix(".default")], matrix)
