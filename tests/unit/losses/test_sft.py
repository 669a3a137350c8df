import math

import pytest
import torch

from loralab.losses.sft import cross_entropy_sum, supervised_positions


def test_uniform_logits_cost_log_vocabulary_per_token() -> None:
    hidden, targets = torch.zeros(5, 3), torch.tensor([0, 1, 2, 3, 0])
    loss = cross_entropy_sum(hidden, targets, lambda part: part @ torch.zeros(3, 4))
    assert loss.item() == pytest.approx(5 * math.log(4))


def test_two_class_example_worked_out_by_hand() -> None:
    # logits (2, 0), target 0: -log(e^2 / (e^2 + 1)) = log(1 + e^-2)
    loss = cross_entropy_sum(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), lambda part: part)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_positions_are_those_before_a_supervised_token() -> None:
    hidden = torch.arange(8.0).reshape(1, 4, 2)
    labels = torch.tensor([[-100, -100, 7, 9]])
    chosen, targets = supervised_positions(hidden, labels)
    assert targets.tolist() == [7, 9]
    assert chosen.tolist() == [[2.0, 3.0], [4.0, 5.0]]


def test_first_token_is_never_a_target() -> None:
    _, targets = supervised_positions(torch.zeros(1, 2, 1), torch.tensor([[5, -100]]))
    assert targets.tolist() == []


def test_chunks_change_neither_loss_nor_gradients() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 11)
    results = []
    for chunk in (100, 3):
        hidden = torch.linspace(-1, 1, 80).reshape(10, 8).requires_grad_()
        head.zero_grad()
        loss = cross_entropy_sum(hidden, torch.arange(10), head, chunk=chunk)
        loss.backward()
        results.append((loss, hidden.grad, head.weight.grad.clone()))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-5, atol=1e-6)
