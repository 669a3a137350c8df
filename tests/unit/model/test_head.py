import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from loralab.data.collate import MicroBatch
from loralab.model.head import hidden_states, projection

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (LlamaForCausalLM, LlamaConfig(**SIZES)),
        (Gemma2ForCausalLM, Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=0.5)),
        (GraniteForCausalLM, GraniteConfig(**SIZES, logits_scaling=8.0)),
        (CohereForCausalLM, CohereConfig(**SIZES, logit_scale=0.25)),
        (GPT2LMHeadModel, GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)),
    ],
)
def test_hidden_states_and_projection_equal_the_models_own_logits(model_class, config) -> None:
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    ids = torch.randint(3, 50, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    expected = model(input_ids=ids, attention_mask=mask).logits
    hidden = hidden_states(model, MicroBatch(ids, mask, ids))
    torch.testing.assert_close(projection(model)(hidden), expected, rtol=1e-5, atol=1e-6)
