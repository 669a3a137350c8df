"""Rotary embeddings in fewer passes, against transformers' function."""

from collections.abc import Callable
from functools import partial, wraps

import pytest
import torch
from tests.unit.model.adapted_models import IDS, adapted, counted
from tests.unit.model.tiny_models import DEEPSEEK, build
from torch import Tensor
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.qwen3 import modeling_qwen3

from loralab.config.model import LoraConfig
from loralab.config.speed import SpeedConfig
from loralab.model import rotary
from loralab.model.faster import run_faster
from loralab.model.rotary import LeanRotary, apply_rotary, replace_rotary

HALF_ROUNDING = 2**-8
"""Of a number in bfloat16."""
FAMILIES = ("llama", "qwen3", "gemma2", "phi")


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", 2),
        ("qwen3", 2),
        ("gemma2", 2),
        ("phi", 2),  # Hands a part of each head over.
        ("phi3", 0),  # Its function takes whole heads and turns a part.
        ("nanochat", 0),  # Llama's function, which calls one that turns the other way.
        ("gpt_neox", 0),  # The same, by other code.
    ],
)
def test_layers_that_call_llamas_function_are_changed(family: str, expected: int) -> None:
    assert replace_rotary(build(family)) == expected


def test_a_layer_that_runs_otherwise_already_stays() -> None:
    model = build("llama")
    assert replace_rotary(model) == 2
    assert replace_rotary(model) == 0


def test_a_function_that_is_wrapped_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody watches it; its code can be read all the same."""
    monkeypatch.setattr(
        modeling_qwen3, "apply_rotary_pos_emb", wraps(modeling_qwen3.apply_rotary_pos_emb)(lambda *_: ())
    )
    assert replace_rotary(build("qwen3")) == 0


def test_results_are_laid_out_as_they_came() -> None:
    query, key = (torch.randn(2, 5, heads, 8).transpose(1, 2) for heads in (4, 2))
    turned = apply_rotary(query, key, *angles(torch.float32))
    assert [each.stride() for each in turned] == [query.stride(), key.stride()]


def angles(dtype: torch.dtype, dim: int = 8) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine of two rows of five tokens, with halves alike."""
    found = torch.rand(2, 5, dim // 2).repeat(1, 1, 2) * 6
    return found.cos().to(dtype), found.sin().to(dtype)


def turn(
    apply: Callable[..., tuple[Tensor, Tensor]], query: Tensor, key: Tensor, cos: Tensor, sin: Tensor
) -> list[Tensor]:
    """Returns both results and both gradients."""
    query, key = query.clone().requires_grad_(), key.clone().requires_grad_()
    turned = apply(query, key, cos, sin)
    sum((each * torch.arange(each.numel()).view_as(each).cos()).sum() for each in turned).backward()
    assert query.grad is not None and key.grad is not None
    return [*turned, query.grad, key.grad]


@pytest.mark.parametrize(
    ("dtype", "of_angles", "most"),
    [
        (torch.float32, torch.float32, 1e-6),
        (torch.bfloat16, torch.bfloat16, HALF_ROUNDING),
        # As under autocast: transformers' own function takes over.
        (torch.bfloat16, torch.float32, 0.0),
    ],
)
def test_results_and_gradients_are_those_of_transformers(
    dtype: torch.dtype, of_angles: torch.dtype, most: float
) -> None:
    torch.manual_seed(0)
    # Laid out by token, as projections leave them.
    query, key = (torch.randn(2, 5, heads, 8, dtype=dtype).transpose(1, 2) for heads in (4, 2))
    given = query, key, *angles(of_angles)
    for ours, theirs in zip(turn(apply_rotary, *given), turn(apply_rotary_pos_emb, *given), strict=True):
        assert ours.dtype == theirs.dtype
        difference = (ours - theirs).detach().float().norm() / theirs.detach().float().norm()
        assert float(difference) <= most


def test_one_pair_is_turned_by_its_angle() -> None:
    """(1, 0) by 90 degrees is (0, 1), and 0.5 further (-sin 0.5, cos 0.5)."""
    angle = torch.tensor([torch.pi / 2, torch.pi / 2 + 0.5], dtype=torch.float64)
    wide = angle[:, None].repeat(1, 2)
    found = LeanRotary.apply(torch.tensor([[1.0, 0.0]] * 2, dtype=torch.float64), wide.cos(), wide.sin())
    expected = torch.tensor([[0.0, 1.0], [-0.479425538604203, 0.877582561890373]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_the_gradient_is_the_transposed_map_where_halves_differ() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    cos, sin = (torch.randn(2, 1, 5, 8, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(LeanRotary.apply, (x, cos, sin))


def test_heads_may_come_after_tokens() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 5, 4, 8), torch.randn(2, 5, 1, 8)
    # One row of angles for all rows.
    cos, sin = (each[:1] for each in angles(torch.float32))
    found = apply_rotary(query, key, cos, sin, unsqueeze_dim=2)
    expected = apply_rotary_pos_emb(query, key, cos, sin, unsqueeze_dim=2)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def deepseek() -> PreTrainedModel:
    """A model whose heads share one key."""
    torch.manual_seed(0)
    config = DeepseekV3Config(**DEEPSEEK, n_group=2, topk_group=1, rope_interleave=False)
    return DeepseekV3ForCausalLM(config).eval()


def loud(model: PreTrainedModel) -> PreTrainedModel:
    """Makes queries and keys so large that a wrong angle changes the result."""
    for name, parameter in model.named_parameters():
        if "q_proj" in name or "k_proj" in name or "kv_a" in name or "q_b" in name:
            parameter.data *= 30
    return model


@pytest.mark.parametrize(
    "build_one", [*(partial(build, each) for each in FAMILIES), deepseek], ids=[*FAMILIES, "mla"]
)
def test_a_model_computes_the_same(
    build_one: Callable[[], PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, lean = loud(build_one()), loud(build_one())
    assert replace_rotary(lean) == 2
    ids = torch.arange(2 * 7).view(2, 7) * 5 % 64
    found, expected = (model(ids, labels=ids) for model in (lean, plain))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    for loss in (found.loss, expected.loss):
        loss.backward()
    for ours, theirs in zip(lean.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)
    # And would not with other angles.
    monkeypatch.setattr(rotary, "_turned", lambda x, *others: x)
    assert float((lean(ids).logits - expected.logits).detach().abs().max()) > 1e-3


def test_a_cache_goes_on_as_before() -> None:
    plain, lean = loud(build("llama")), loud(build("llama"))
    assert replace_rotary(lean) == 2
    options = {
        "max_new_tokens": 5,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    found, expected = (model.generate(torch.arange(3, 9).unsqueeze(0), **options) for model in (lean, plain))
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("is_on", "expected"), [(True, 2 * 2), (False, 0)])
def test_a_key_turns_it_off(is_on: bool, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries and keys of two layers."""
    model = adapted(LoraConfig(r=4))
    run_faster(model, SpeedConfig(recompute_elementwise=is_on))
    calls = counted(LeanRotary, monkeypatch)
    model(IDS)
    assert len(calls) == expected
