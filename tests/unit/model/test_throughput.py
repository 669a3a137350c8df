import itertools

import pytest
import torch

from loralab.model.size import ModelSize
from loralab.model.throughput import forward_flops, matmul_rate, training_flops

TOY = ModelSize(
    num_linear=1152, num_other=200, largest_linear=(16, 8),
    num_layers=2, hidden_size=8, attention_size=8, vocab_size=10,
)  # fmt: skip
LINEAR, ATTENTION, HEAD = 10 * 2 * 1152, 10 * 4 * 2 * 8 * 5, 3 * 2 * 8 * 10
CPU = (torch.device("cpu"), torch.float32)


def ticks():
    """A clock that is a tenth of a second further at each look."""
    return itertools.count(0.0, 0.1).__next__


def test_a_forward_pass_is_as_by_hand():
    assert forward_flops(TOY, 10, 5, 3) == LINEAR + ATTENTION + HEAD == 26_720


def test_training_needs_no_gradient_of_frozen_weights():
    assert training_flops(TOY, 10, 5, 3) == 2 * LINEAR + 3 * ATTENTION + 2 * HEAD


def test_checkpointing_repeats_the_layers():
    assert training_flops(TOY, 10, 5, 3, True) == 3 * LINEAR + 4 * ATTENTION + 2 * HEAD
    assert training_flops(TOY, 10, 5, 3, 4) == 2.25 * LINEAR + 3.25 * ATTENTION + 2 * HEAD


def test_the_rate_is_that_of_the_largest_product_tried():
    # A product takes a tenth of a second by this clock: 16, 32, then 64 rows of 3 x 4.
    assert matmul_rate((4, 3), 64, CPU, budget_s=1.0, clock=ticks()) == pytest.approx(2 * 64 * 12 / 0.1)


def test_a_slow_product_is_not_made_larger():
    # A tenth of a second is more than an eighth of the budget.
    assert matmul_rate((4, 3), 64, CPU, budget_s=0.4, clock=ticks()) == pytest.approx(2 * 16 * 12 / 0.1)


def test_no_more_rows_are_tried_than_there_are_tokens():
    assert matmul_rate((4, 3), 5, CPU, budget_s=1.0, clock=ticks()) == pytest.approx(2 * 5 * 12 / 0.1)


def test_one_product_is_tried_however_little_time_there_is():
    assert matmul_rate((4, 3), 64, CPU, budget_s=0.0, clock=ticks()) > 0
