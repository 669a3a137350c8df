"""Units of an epoch: each example as often as the mixture says, the same number of units every epoch."""

import numpy as np
import pytest

from loralab.data.layout import Layout

LENGTHS = np.array([10, 20, 30, 40, 50, 60, 70, 80, 10, 20, 30, 40])


def layout(mixture: list[int] | None = None, **options: int) -> Layout:
    chosen = np.arange(len(LENGTHS)) if mixture is None else np.array(mixture)
    return Layout(LENGTHS, chosen, seed=0, **options)


def members(made: Layout, epoch: int) -> list[list[int]]:
    return [made.unit(epoch, number).tolist() for number in range(made.num_units)]


def test_unit_is_one_example_where_nothing_is_packed() -> None:
    made = layout([3, 3, 0])
    assert made.num_units == 3
    assert members(made, 0) == members(made, 5) == [[3], [3], [0]]


@pytest.mark.parametrize("options", [{"pack_length": 100}, {"batch_tokens": 128}])
def test_every_epoch_holds_each_example_of_the_mixture_once(options: dict[str, int]) -> None:
    made = layout([*range(12), 0, 0, 5], **options)
    for epoch in (0, 1, 7):
        flat = [example for unit in members(made, epoch) for example in unit]
        assert sorted(flat) == sorted([*range(12), 0, 0, 5])
    assert made.num_units == len(members(made, 1))


def test_packs_are_as_full_as_their_length_allows() -> None:
    made = layout(pack_length=100)
    # 460 tokens in rows of 100 need five of them.
    assert made.num_units == 5
    assert all(LENGTHS[unit].sum() <= 100 for unit in members(made, 0))
    assert made.fill == pytest.approx(460 / 500)


def test_groups_keep_to_the_token_budget_with_padding() -> None:
    made = layout(batch_tokens=128)
    for unit in members(made, 0):
        padded = -(-LENGTHS[unit].max() // 16) * 16
        assert len(unit) * padded <= 128


def test_layout_is_a_function_of_seed_and_epoch() -> None:
    lengths = np.full(40, 10)
    first, again = (Layout(lengths, np.arange(40), 1, pack_length=50) for _ in range(2))
    other = Layout(lengths, np.arange(40), 2, pack_length=50)
    assert members(first, 3) == members(again, 3)
    assert members(first, 3) != members(first, 4)
    assert members(first, 3) != members(other, 3)
