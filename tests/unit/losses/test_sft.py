import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from loralab.losses import sft
from loralab.losses.sft import plain_nll, supervised_positions, tiled_nll, token_nll


def test_uniform_logits_cost_log_vocabulary_per_token() -> None:
    hidden, targets = torch.zeros(5, 3), torch.tensor([0, 1, 2, 3, 0])
    losses = token_nll(hidden, targets, lambda part: part @ torch.zeros(3, 4))
    assert losses.tolist() == pytest.approx([math.log(4)] * 5)


def test_two_class_example_worked_out_by_hand() -> None:
    # logits (2, 0), target 0: -log(e^2 / (e^2 + 1)) = log(1 + e^-2); target 1: log(1 + e^2)
    losses = token_nll(torch.tensor([[2.0, 0.0]] * 2), torch.tensor([0, 1]), lambda part: part)
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))])


def test_positions_are_those_of_the_supervised_tokens_after_the_first() -> None:
    labels = torch.tensor([[-100, -100, 7, 9], [5, -100, -100, 3]])
    assert supervised_positions(labels).tolist() == [[False, True, True], [False, False, True]]


def test_chunks_change_neither_loss_nor_gradients() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 11)
    results = []
    for chunk in (100, 3):
        hidden = torch.linspace(-1, 1, 80).reshape(10, 8).requires_grad_()
        head.zero_grad()
        losses = token_nll(hidden, torch.arange(10), head, chunk=chunk)
        losses.sum().backward()
        results.append((losses, hidden.grad, head.weight.grad.clone()))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_frozen_projection_worked_out_by_hand() -> None:
    # p = softmax(2, 0) = (0.8808, 0.1192); the gradient of -log p(0) is p - (1, 0), here three times.
    hidden = torch.tensor([[2.0, 0.0]], requires_grad=True)
    losses = token_nll(hidden, torch.tensor([0]), lambda part: part, is_frozen=True)
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-2))])
    (3 * losses).sum().backward()
    p = math.exp(2) / (math.exp(2) + 1)
    assert hidden.grad.flatten().tolist() == pytest.approx([3 * (p - 1), 3 * (1 - p)])


@pytest.mark.parametrize("chunk", [100, 3])
def test_a_frozen_projection_runs_once_and_gives_the_same_loss_and_gradient(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(11, 8, generator=generator)
    start, factors = torch.randn(10, 8, generator=generator), torch.rand(10, generator=generator)
    targets = torch.arange(10)
    results, calls = [], []

    def capped(part: torch.Tensor) -> torch.Tensor:
        calls.append(len(part))
        return 5 * torch.tanh(part @ weight.T / 5)

    for is_frozen in (False, True):
        calls.clear()
        hidden = start.clone().requires_grad_()
        losses = token_nll(hidden, targets, capped, chunk=chunk, is_frozen=is_frozen)
        (losses * factors).sum().backward()
        results.append((losses.detach(), hidden.grad))
    assert sum(calls) == 10
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-6, atol=1e-6)


def test_losses_alone_are_taken_of_a_few_logits_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    heights: list[int] = []
    original = F.cross_entropy

    def spy(logits: Tensor, *arguments: Any, **options: Any) -> Tensor:
        heights.append(len(logits))
        return original(logits, *arguments, **options)

    monkeypatch.setattr(sft, "TILE_BYTES", 3 * 4 * 7)
    monkeypatch.setattr(sft.F, "cross_entropy", spy)
    hidden, targets = torch.randn(8, 7, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 7
    with torch.no_grad():
        losses = token_nll(hidden, targets, lambda part: part)
    assert heights == [3, 3, 2]
    torch.testing.assert_close(losses, hidden.logsumexp(-1) - hidden[range(8), targets])


def test_losses_alone_need_no_gradient() -> None:
    with torch.no_grad():
        losses = token_nll(torch.zeros(2, 3), torch.tensor([0, 1]), lambda part: part, is_frozen=True)
    assert not losses.requires_grad
    assert losses.tolist() == pytest.approx([math.log(3)] * 2)


def test_in_float16_the_scale_of_the_loss_reaches_the_smallest_gradients() -> None:
    # A certain target: p(other) = 2e-9, which float16 rounds to 0; times a scale of 2^16 it is 1.3e-4.
    hidden = torch.tensor([[20.0, 0.0]], dtype=torch.float16, requires_grad=True)
    losses = token_nll(hidden, torch.tensor([0]), lambda part: part, is_frozen=True)
    (2**16 * losses).sum().backward()
    assert hidden.grad[0, 1].item() == pytest.approx(2**16 * math.exp(-20), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_of_logits_become_their_gradients(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against PyTorch's cross entropy and autograd; three rows at a time, the last alone."""
    monkeypatch.setattr(sft, "TILE_BYTES", 3 * 4 * 13)
    torch.manual_seed(0)
    logits, targets = (20 * torch.randn(10, 13)).to(dtype), torch.arange(10)
    wide = logits.float().clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(wide, targets, reduction="none")
    (expected_gradient,) = torch.autograd.grad(expected.sum(), wide)
    losses, gradient = plain_nll(logits, targets)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    losses, gradient = tiled_nll(logits, targets)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(gradient, expected_gradient.to(dtype))
    assert gradient is logits


def test_losses_hold_where_probabilities_are_too_small_for_float32() -> None:
    losses, gradient = plain_nll(torch.tensor([[300.0, 0.0], [0.0, 300.0]]), torch.tensor([1, 1]))
    assert losses.tolist() == [300, 0]
    assert gradient.tolist() == [[1, -1], [0, 0]]
