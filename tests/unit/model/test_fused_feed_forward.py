"""Gated feed-forward layers that run as one function, beside the same layer by layer."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from tests.unit.model import tiny_models
from tests.unit.model.adapted_models import (
    IDS,
    adapted,
    assert_same,
    counted,
    outputs_and_gradients,
    quantized_llama,
)
from torch import Tensor, nn

from loralab.config.model import LoraConfig
from loralab.config.speed import SpeedConfig
from loralab.model.elementwise import recompute_elementwise
from loralab.model.faster import run_faster
from loralab.model.fused_feed_forward import FusedFeedForward, fuse_feed_forward
from loralab.model.fused_lora import Update, fuse_lora
from loralab.model.lora import trainable

LAYERS, WIDTH, RANK = 2, 48, 4


def fused(model: PeftModel) -> PeftModel:
    """Turns on all that it builds on."""
    fuse_lora(model)
    recompute_elementwise(model)
    assert fuse_feed_forward(model) == LAYERS
    return model


def parts(dtype: torch.dtype) -> tuple[list[tuple[float, nn.Module]], list[Tensor]]:
    """Returns three frozen layers, the first with a bias, and the A and B of each."""
    generator = torch.Generator().manual_seed(0)
    frozen: list[tuple[float, nn.Module]] = []
    learned = []
    for into, out, scaling in ((3, 5, 2.0), (3, 5, 0.5), (5, 3, 1.5)):
        base = nn.Linear(into, out, bias=not frozen, dtype=dtype).requires_grad_(False)
        for parameter in base.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        frozen.append((scaling, base))
        for shape in ((2, into), (out, 2)):
            learned.append(torch.randn(shape, generator=generator, dtype=dtype).requires_grad_())
    return frozen, learned


def test_it_is_the_equation_and_its_gradients_are_those_of_small_differences() -> None:
    frozen, learned = parts(torch.float64)
    x = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def layer(at: int, x: Tensor) -> Tensor:
        (scaling, base), down, up = frozen[at], learned[2 * at], learned[2 * at + 1]
        return base(x) + scaling * x @ down.T @ up.T

    expected = layer(2, F.silu(layer(0, x)) * layer(1, x))
    torch.testing.assert_close(FusedFeedForward.apply(x, frozen, *learned), expected)
    assert torch.autograd.gradcheck(lambda x, *each: FusedFeedForward.apply(x, frozen, *each), (x, *learned))


def test_the_gradient_of_an_input_is_left_out_where_nobody_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, learned = parts(torch.float32)
    bases: list[nn.Module] = []
    original = Update.of_input

    def spy(layer: Update, *arguments: Any) -> Tensor:
        bases.append(layer.base)
        return original(layer, *arguments)

    monkeypatch.setattr(Update, "of_input", spy)
    FusedFeedForward.apply(torch.ones(2, 3), frozen, *learned).sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in learned)
    assert bases == [frozen[2][1]]


def test_it_runs_again_under_gradient_checkpointing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(LoraConfig(r=RANK)).train()
    expected = outputs_and_gradients(model)
    fused(model).gradient_checkpointing_enable({"use_reentrant": False})
    calls = counted(FusedFeedForward, monkeypatch)
    assert_same(outputs_and_gradients(model), expected)
    assert len(calls) == 2 * LAYERS


@pytest.mark.parametrize("kind", ["none", "nf4", "int8"])
def test_it_computes_what_peft_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(LoraConfig(r=RANK)) if kind == "none" else quantized_llama(kind)
    expected = outputs_and_gradients(model)
    calls = counted(FusedFeedForward, monkeypatch)
    assert_same(outputs_and_gradients(fused(model)), expected)
    assert len(calls) == LAYERS


def kept_bytes(model: PeftModel) -> int:
    """Returns the bytes of activations that are kept for the backward pass."""
    kept: dict[int, int] = {}
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(IDS).logits
    assert logits.grad_fn is not None  # What is kept lives until it is counted.
    return sum(size for place, size in kept.items() if place not in own)


def test_the_product_of_gate_and_upward_projection_is_not_kept() -> None:
    layer_by_layer = adapted(LoraConfig(r=RANK))
    fuse_lora(layer_by_layer)
    recompute_elementwise(layer_by_layer)
    less = kept_bytes(layer_by_layer) - kept_bytes(fused(adapted(LoraConfig(r=RANK))))
    assert less == LAYERS * IDS.numel() * WIDTH * 4


def test_in_sixteen_bits_it_is_as_near_to_float32() -> None:
    exact = outputs_and_gradients(adapted(LoraConfig(r=RANK)))
    half = adapted(LoraConfig(r=RANK)).to(torch.bfloat16)
    fuse_lora(half)
    recompute_elementwise(half)
    plain = outputs_and_gradients(half)
    fuse_feed_forward(half)
    found = outputs_and_gradients(half)

    def distance(each: dict[str, Tensor]) -> float:
        return sum(float((each[name].float() - value).norm() / value.norm()) for name, value in exact.items())

    assert distance(found) < 1.1 * distance(plain)


@pytest.mark.parametrize(
    ("options", "family"),
    [
        ({"targets": ["q_proj", "up_proj"]}, "llama"),  # The others have no adapter.
        ({}, "gemma2"),  # Gated by GELU.
        ({}, "phi3"),  # Gate and upward projection are one layer.
    ],
)
def test_what_is_another_layer_stays(options: dict[str, Any], family: str) -> None:
    model = adapted(LoraConfig(r=RANK, **options), family)
    fuse_lora(model)
    assert fuse_feed_forward(model) == 0


@pytest.mark.parametrize("off", ["fused_lora", "recompute_elementwise", "compile", None])
def test_a_key_turns_it_off(off: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gates are compiled, the estimate of memory must not count on it either."""
    speed = SpeedConfig()
    if off is not None:
        setattr(speed, off, off == "compile")
    model, calls = adapted(LoraConfig(r=RANK)), counted(FusedFeedForward, monkeypatch)
    run_faster(model, speed)
    model(IDS)
    assert len(calls) == (LAYERS if off is None else 0)


@pytest.mark.parametrize("options", [{"dropout": 0.1}, {"dora": True}], ids=["dropout", "dora"])
def test_what_does_more_runs_layer_by_layer(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(LoraConfig(r=RANK, **options)).train()
    torch.manual_seed(5)
    expected = outputs_and_gradients(model)
    calls = counted(FusedFeedForward, monkeypatch)
    torch.manual_seed(5)
    assert_same(outputs_and_gradients(fused(model)), expected)
    assert not calls


def test_a_projection_that_is_watched_runs_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = fused(adapted(LoraConfig(r=RANK))), []
    calls = counted(FusedFeedForward, monkeypatch)
    layer = next(module for name, module in model.named_modules() if name.endswith("0.mlp.down_proj"))
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    model(IDS)
    assert seen == [(*IDS.shape, WIDTH)] and len(calls) == LAYERS - 1
    handle.remove()
    model(IDS)
    assert len(seen) == 1 and len(calls) == 2 * LAYERS - 1


def test_a_switched_off_adapter_leaves_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fused(adapted(LoraConfig(r=RANK)))
    calls = counted(FusedFeedForward, monkeypatch)
    with model.disable_adapter(), torch.no_grad():
        found = model(IDS).logits
    with torch.no_grad():
        torch.testing.assert_close(found, tiny_models.build("llama")(IDS).logits)
    assert not calls


def test_a_copy_of_the_model_runs_on_its_own_weights() -> None:
    twin = copy.deepcopy(fused(adapted(LoraConfig(r=RANK))))
    for parameter in trainable(twin).values():
        parameter.data.zero_()
    with torch.no_grad():
        torch.testing.assert_close(twin(IDS).logits, tiny_models.build("llama")(IDS).logits)
