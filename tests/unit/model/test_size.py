import pytest
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

from loralab.config.model import ModelConfig
from loralab.model.load import skeleton
from loralab.model.size import ModelSize, measure_model

TOY = LlamaConfig(
    vocab_size=10, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1,
)  # fmt: skip
"""A layer: q and o 8 x 8, k and v 8 x 4, gate, up and down 8 x 16: 576 weights."""


@pytest.fixture(scope="module")
def toy() -> ModelSize:
    return measure_model(skeleton(ModelConfig(), TOY))


def test_a_toy_is_counted_as_by_hand(toy):
    assert toy == ModelSize(
        num_linear=2 * 576,
        num_other=10 * 8 + 10 * 8 + 2 * 2 * 8 + 8,  # embedding, head, two norms a layer, last norm
        largest_linear=(16, 8),
        num_layers=2,
        hidden_size=8,
        attention_size=8,
        vocab_size=10,
    )


def test_the_counts_are_those_of_the_real_model(toy):
    real = LlamaForCausalLM(TOY)
    assert toy.num_linear + toy.num_other == sum(parameter.numel() for parameter in real.parameters())


def test_a_tied_head_counts_once_and_is_not_linear():
    tied = LlamaConfig(**{**TOY.to_dict(), "tie_word_embeddings": True})
    size = measure_model(skeleton(ModelConfig(), tied))
    assert (size.num_linear, size.num_other) == (1152, 80 + 40)


def test_the_linear_layers_of_gpt2_are_counted():
    config = GPT2Config(vocab_size=10, n_positions=4, n_embd=8, n_layer=1, n_head=2)
    # Attention 8 x 24 and 8 x 8, the feed-forward part 8 x 32 and 32 x 8.
    assert measure_model(skeleton(ModelConfig(), config)).num_linear == 192 + 64 + 256 + 256
