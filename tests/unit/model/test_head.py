import pytest
import torch
from tests.unit.model import tiny_models
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    HyperCLOVAXConfig,
    HyperCLOVAXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertDecoderConfig,
    ModernBertDecoderForCausalLM,
    MptConfig,
    MptForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from loralab.config.model import LoraConfig
from loralab.config.speed import SpeedConfig
from loralab.data.collate import MicroBatch
from loralab.errors import ModelError
from loralab.model import head
from loralab.model.head import check_projection, hidden_states, projection, target_nll
from loralab.model.lora import attach_adapter, trainable

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


@pytest.mark.parametrize("method", ["prefix", "prompt", "ptuning"])
@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (LlamaForCausalLM, LlamaConfig(**SIZES)),
        (Gemma2ForCausalLM, Gemma2Config(**SIZES, head_dim=8, sliding_window=4)),
        (GPT2LMHeadModel, GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)),
        # One head of keys for four of queries, under a name that PEFT does not know.
        (
            FalconForCausalLM,
            FalconConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
        ),
        (MptForCausalLM, MptConfig(vocab_size=50, d_model=32, n_layers=2, n_heads=4, expansion_ratio=2)),
    ],
)
def test_virtual_tokens_give_pefts_own_logits_and_disabled_the_bases(
    model_class, config, method: str
) -> None:
    torch.manual_seed(0)
    base = model_class(config).eval()
    ids = torch.randint(3, 50, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    batch, real = MicroBatch(ids, mask, ids), mask.bool()
    plain = base(input_ids=ids, attention_mask=mask).logits[real]
    model = attach_adapter(base, LoraConfig(method=method, virtual_tokens=3), 0)
    for parameter in trainable(model).values():
        torch.nn.init.normal_(parameter)

    def ours() -> torch.Tensor:
        return projection(base)(hidden_states(model, batch))[real]

    expected = model(input_ids=ids, attention_mask=mask).logits[:, -7:][real]
    torch.testing.assert_close(ours(), expected, rtol=1e-5, atol=1e-5)
    assert (expected - plain).abs().max() > 1e-2
    with model.disable_adapter():
        torch.testing.assert_close(ours(), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", list(tiny_models.CONFIGS))
def test_logits_that_are_known_pass(family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "KNOWN_HEADS", ())
    assert check_projection(tiny_models.build(family).to(dtype)) is None


@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (HyperCLOVAXForCausalLM, HyperCLOVAXConfig(**SIZES, logits_scaling=2.0)),
        (
            RecurrentGemmaForCausalLM,
            RecurrentGemmaConfig(
                **SIZES, logits_soft_cap=0.5, lru_width=32, block_types=["recurrent", "attention"]
            ),
        ),
        (
            ModernBertDecoderForCausalLM,
            ModernBertDecoderConfig(**SIZES, cls_token_id=1, sep_token_id=2),
        ),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_made_in_another_way_are_refused(model_class, config, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = model_class(config).to(dtype).eval()
    with pytest.raises(ModelError, match=f"models of type '{config.model_type}' turn hidden states into"):
        check_projection(model)


class DoublingHead(LlamaForCausalLM):
    """A model with code of its own, under the name of a family that is known."""

    def forward(self, **inputs):
        output = super().forward(**inputs)
        output.logits = 2 * output.logits
        return output


class NoHead(DoublingHead):
    def get_output_embeddings(self) -> None:
        return None


def test_a_known_name_is_trusted_only_in_transformers_own_classes() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES)
    assert check_projection(LlamaForCausalLM(config).eval()) is None
    with pytest.raises(ModelError, match="models of type 'llama' turn hidden states into"):
        check_projection(DoublingHead(config).eval())
    with pytest.raises(ModelError, match="'llama' cannot be run as decoder and output head: 'NoneType'"):
        check_projection(NoHead(config).eval())


@pytest.mark.parametrize("is_frozen", [True, False])
def test_positions_are_filled_up_to_few_numbers_of_rows(is_frozen: bool) -> None:
    """Against cross entropy of the head's own logits; 21 positions go through it as 32."""
    torch.manual_seed(0)
    config = LlamaConfig(**tiny_models.LLAMA_LIKE)
    model = LlamaForCausalLM(config).requires_grad_(not is_frozen)
    output_head = model.get_output_embeddings()
    hidden = torch.randn(21, config.hidden_size, requires_grad=True)
    targets = torch.arange(21)
    taken = [hidden, *output_head.parameters()][: 1 if is_frozen else None]
    seen = []
    hook = output_head.register_forward_hook(lambda _, given, logits: seen.append(len(logits)))
    losses = target_nll(model, hidden, targets, SpeedConfig())
    hook.remove()
    expected = torch.nn.functional.cross_entropy(output_head(hidden), targets, reduction="none")
    assert seen == [32]
    torch.testing.assert_close(losses, expected)
    found = torch.autograd.grad((losses * targets).sum(), taken)
    torch.testing.assert_close(found, torch.autograd.grad((expected * targets).sum(), taken))
