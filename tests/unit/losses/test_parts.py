import math

import pytest
import torch

from loralab.losses.parts import LossParts, SourceMeans


def test_mean_is_weighted_over_all_items_and_within_each_source() -> None:
    means = SourceMeans(3)
    means.update(
        LossParts(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0, 1, 1]))
    )
    means.update(LossParts(torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([0])))
    overall, first, second, third = means.compute().tolist()
    # (1 + 1 + 8 + 3) / (1 + 0.5 + 2 + 1); (1 + 3) / 2; (1 + 8) / 2.5; nothing
    assert (overall, first, second) == pytest.approx((13 / 4.5, 2.0, 3.6))
    assert math.isnan(third)


def test_items_without_weights_count_one_and_come_from_the_first_source() -> None:
    means = SourceMeans(2)
    means.update(LossParts(torch.tensor([1.0, 2.0, 6.0])))
    assert means.compute()[:2].tolist() == [3.0, 3.0]


def test_means_forget_on_reset() -> None:
    means = SourceMeans(1)
    means.update(LossParts(torch.tensor([5.0])))
    means.reset()
    means.update(LossParts(torch.tensor([1.0])))
    assert means.compute().tolist() == [1.0, 1.0]


def test_a_loss_that_is_not_a_number_is_not_dropped() -> None:
    means = SourceMeans(1)
    means.update(LossParts(torch.tensor([1.0, math.nan])))
    assert math.isnan(means.compute()[0])
