import pytest
import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerBase,
)

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.prompts import PREFIX_STD, cache_shape
from loralab.model.lora import attach_adapter, trainable

CONFIG = LlamaConfig(
    vocab_size=400,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def start_of(tokenizer: PreTrainedTokenizerBase | None = None, **lora: object):
    """Returns a new adapter's own embedding [virtual, ...] and the model's words."""
    torch.manual_seed(0)
    model = attach_adapter(LlamaForCausalLM(CONFIG), LoraConfig(**lora), 0, AdapterContext(tokenizer))  # type: ignore[arg-type]
    words = model.get_base_model().get_input_embeddings().weight
    return model.prompt_encoder["default"].embedding.weight.detach(), words


def test_prompt_tuning_starts_from_words_of_the_vocabulary() -> None:
    start, words = start_of(method="prompt", virtual_tokens=6)
    distance = (start[:, None] - words[None]).abs().amax(-1).amin(-1)
    assert start.shape == (6, 32)
    assert distance.max() == 0
    assert len({tuple(row.tolist()) for row in start}) > 1


def test_prompt_tuning_starts_from_a_text_repeated_to_its_length(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("Count to five", add_special_tokens=False)["input_ids"]
    start, words = start_of(
        tokenizer, method="prompt", virtual_tokens=len(ids) + 2, prompt_text="Count to five"
    )
    assert torch.equal(start, words[torch.tensor([*ids, *ids[:2]])])
    shorter, words = start_of(tokenizer, method="prompt", virtual_tokens=2, prompt_text="Count to five")
    assert torch.equal(shorter, words[torch.tensor(ids[:2])])


def test_a_text_without_tokens_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match=r"lora\.prompt_text=''"):
        start_of(tokenizer, method="prompt", prompt_text="")


def test_a_prefix_is_small_and_its_tokens_differ() -> None:
    start, _ = start_of(method="prefix", virtual_tokens=200)
    # Keys and values of two layers, two heads of 8.
    assert start.shape == (200, 2 * 2 * 2 * 8)
    assert start.std().item() == pytest.approx(PREFIX_STD, rel=0.05)
    assert not torch.equal(start[0], start[1])


def test_only_the_virtual_tokens_train() -> None:
    for method, count in {"prefix": 5 * 64, "prompt": 5 * 32, "ptuning": 5 * 32 + 3 * (32 * 32 + 32)}.items():
        model = attach_adapter(LlamaForCausalLM(CONFIG), LoraConfig(method=method, virtual_tokens=5), 0)
        assert all(name.startswith("prompt_encoder.") for name in trainable(model))
        assert sum(value.numel() for value in trainable(model).values()) == count


def test_the_shape_of_the_cache_is_the_models_own() -> None:
    falcon = FalconConfig(vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
    assert cache_shape(LlamaForCausalLM(CONFIG)) == (2, 2, 8)
    assert cache_shape(FalconForCausalLM(falcon)) == (3, 1, 8)


def test_models_whose_layers_cannot_take_a_prefix_are_refused() -> None:
    # Latent attention (arXiv:2405.04434) keeps keys of 4 + 4 and values of 6.
    deepseek = DeepseekV3Config(
        vocab_size=50, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=6, n_routed_experts=2, num_experts_per_tok=1, first_k_dense_replace=1,
        n_group=1, topk_group=1,
    )  # fmt: skip
    mamba = MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=1)
    for model in (DeepseekV3ForCausalLM(deepseek), MambaForCausalLM(mamba)):
        with pytest.raises(
            ConfigError, match=r"lora.method=prefix cannot be put on .*Use lora.method=prompt"
        ):
            attach_adapter(model, LoraConfig(method="prefix"), 0)
