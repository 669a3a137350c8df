import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from loralab.config.schema import LoraConfig, ModelConfig, QuantConfig
from loralab.errors import ConfigError
from loralab.model.footprint import ModelSize, bits_per_parameter, estimate_memory, measure_model
from loralab.model.load import skeleton

TOY = LlamaConfig(
    vocab_size=10, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1,
)  # fmt: skip
"""A layer: q and o 8 x 8, k and v 8 x 4, gate, up and down 8 x 16: 576 weights, 128 inputs and outputs."""


@pytest.fixture(scope="module")
def toy() -> ModelSize:
    return measure_model(skeleton(ModelConfig(), TOY), LoraConfig(r=2))


def test_a_toy_is_counted_as_by_hand(toy):
    assert toy == ModelSize(
        num_linear=2 * 576,
        num_other=10 * 8 + 10 * 8 + 2 * 2 * 8 + 8,  # embedding, head, two norms a layer, last norm
        num_adapter=2 * 2 * 128,
        linear_features=2 * 128,
        largest_linear=(16, 8),
        num_layers=2,
        hidden_size=8,
        attention_size=8,
        vocab_size=10,
    )


def test_the_counts_are_those_of_the_real_model(toy):
    real = LlamaForCausalLM(TOY)
    assert toy.num_linear + toy.num_other == sum(parameter.numel() for parameter in real.parameters())


def test_a_tied_head_counts_once_and_is_not_quantized():
    tied = LlamaConfig(**{**TOY.to_dict(), "tie_word_embeddings": True})
    size = measure_model(skeleton(ModelConfig(), tied), LoraConfig(r=2))
    assert (size.num_linear, size.num_other) == (1152, 80 + 40)


def test_the_adapter_is_on_its_targets_alone():
    size = measure_model(skeleton(ModelConfig(), TOY), LoraConfig(r=4, targets=["q_proj", "v_proj"]))
    assert size.num_adapter == 2 * 4 * ((8 + 8) + (8 + 4))


def test_unknown_targets_are_refused():
    with pytest.raises(ConfigError, match="'q_prj' matches no linear layer"):
        measure_model(skeleton(ModelConfig(), TOY), LoraConfig(targets=["q_prj"]))


@pytest.mark.parametrize(
    ("quant", "dtype", "bits"),
    [
        (QuantConfig("nf4", True), torch.bfloat16, 4.127),
        (QuantConfig("nf4", False), torch.float32, 4.5),
        (QuantConfig("none"), torch.bfloat16, 16),
        (QuantConfig("none"), torch.float32, 32),
    ],
)
def test_bits_per_parameter_are_those_of_the_paper(quant, dtype, bits):
    assert bits_per_parameter(quant, dtype) == pytest.approx(bits, abs=5e-4)


def test_memory_of_the_toy_is_as_by_hand(toy):
    assert estimate_memory(toy, QuantConfig("nf4"), torch.bfloat16, 10, False) == {
        "linear weights": 594,  # 1152 x 4.127 / 8
        "other weights": 2 * 200,
        "adapter and optimizer": 512 * (2 + 4 + 4 + 8),
        "activations": 10 * 256 * 2,
        "logits": 2 * 10 * 10 * 4,
    }


def test_checkpointing_keeps_a_hidden_state_per_layer_and_one_layer(toy):
    memory = estimate_memory(toy, QuantConfig("none"), torch.float32, 10, True)
    assert memory["activations"] == 10 * (2 * 8 + 128) * 4
    assert memory["linear weights"] == 1152 * 4


def test_logits_are_bounded_by_the_chunk(toy):
    memory = estimate_memory(toy, QuantConfig("none"), torch.float32, 10_000, False)
    assert memory["logits"] == 2 * 512 * 10 * 4
