import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralab.data.packing import (
    Packs,
    document_bounds,
    document_positions,
    group_by_tokens,
    pack_best_fit,
)

CAPACITY = 20
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=60)


def as_lists(packs: Packs) -> list[list[int]]:
    return [pack.tolist() for pack in packs]


def best_fit_one_by_one(lengths: list[int], capacity: int) -> list[list[int]]:
    """The textbook algorithm; of equally tight rows it takes the one that has been so for longest."""
    rows: list[list[int]] = []
    for document in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        rooms = [capacity - sum(lengths[member] for member in row) for row in rows]
        fitting = [place for place, room in enumerate(rooms) if room >= lengths[document]]
        row = rows.pop(min(fitting, key=lambda place: rooms[place])) if fitting else []
        rows.append([*row, document])
    return rows


@given(LENGTHS)
def test_best_fit_builds_the_rows_of_the_textbook_algorithm(lengths: list[int]) -> None:
    packed = as_lists(pack_best_fit(lengths, CAPACITY))

    assert sorted(packed) == sorted(best_fit_one_by_one(lengths, CAPACITY))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 300), min_size=200, max_size=300))
def test_best_fit_builds_the_rows_of_the_textbook_algorithm_on_many_documents(lengths: list[int]) -> None:
    packed = as_lists(pack_best_fit(lengths, 300))

    assert sorted(packed) == sorted(best_fit_one_by_one(lengths, 300))


def test_best_fit_on_an_example_worked_out_by_hand() -> None:
    # 7 | 6 | 5 5 -> room 3, 4, 0; 4 fills the room of 4, 3 the room of 3, 2 opens a row.
    packed = pack_best_fit([2, 5, 7, 3, 6, 4, 5], 10)

    assert as_lists(packed) == [[2, 3], [4, 5], [1, 6], [0]]
    assert packed.fill([2, 5, 7, 3, 6, 4, 5], 10) == pytest.approx(32 / 40)


@given(LENGTHS, st.randoms(use_true_random=False))
def test_every_document_is_packed_once_and_no_row_overflows(lengths: list[int], random) -> None:
    order = random.sample(range(len(lengths)), len(lengths))

    packed = as_lists(pack_best_fit(lengths, CAPACITY, np.array(order, dtype=np.int64)))

    assert sorted(member for row in packed for member in row) == list(range(len(lengths)))
    assert all(row and sum(lengths[member] for member in row) <= CAPACITY for row in packed)


@given(LENGTHS, st.randoms(use_true_random=False))
def test_order_decides_only_between_documents_of_one_length(lengths: list[int], random) -> None:
    order = np.array(random.sample(range(len(lengths)), len(lengths)), dtype=np.int64)

    shapes = [
        [[lengths[member] for member in row] for row in as_lists(packs)]
        for packs in (pack_best_fit(lengths, CAPACITY), pack_best_fit(lengths, CAPACITY, order))
    ]

    assert shapes[0] == shapes[1]


def test_another_order_packs_other_documents_together() -> None:
    lengths = [6, 6, 4, 4]

    assert as_lists(pack_best_fit(lengths, 10)) == [[0, 2], [1, 3]]
    assert as_lists(pack_best_fit(lengths, 10, np.array([1, 0, 2, 3]))) == [[1, 2], [0, 3]]


@pytest.mark.parametrize("seed", range(3))
def test_realistic_lengths_fill_their_rows(seed: int) -> None:
    lengths = np.random.default_rng(seed).lognormal(math.log(180), 0.8, 20_000).astype(np.int64).clip(1, 2048)

    assert pack_best_fit(lengths, 2048).fill(lengths, 2048) > 0.998


@pytest.mark.parametrize("name", ["gsm8k_train.jsonl", "alpaca_en_demo.json"])
def test_real_rows_fill_their_rows(name: str, shared_data: Path) -> None:
    text = (shared_data / name).read_text(encoding="utf-8")
    rows = json.loads(text) if name.endswith(".json") else map(json.loads, text.splitlines())
    lengths = [max(1, min(2048, len("".join(row.values())) // 4)) for row in rows]

    assert pack_best_fit(lengths, 2048).fill(lengths, 2048) >= 0.98


def test_nothing_packs_into_nothing() -> None:
    packed = pack_best_fit([], 10)

    assert len(packed) == 0
    assert packed.fill([], 10) == 1.0
    assert len(group_by_tokens([], 10, 1)) == 0


def test_a_length_above_the_capacity_is_refused() -> None:
    with pytest.raises(AssertionError, match="lengths"):
        pack_best_fit([3, 11], 10)


def test_packs_are_indexed_like_a_sequence() -> None:
    packs = pack_best_fit([6, 6, 4], 10)

    assert packs[-1].tolist() == packs[1].tolist() == [1]
    with pytest.raises(IndexError):
        packs[2]


def test_groups_on_an_example_worked_out_by_hand() -> None:
    # Widths 48, 24, 16, 16, 16, 8 of lengths 41, 20, 16, 16, 9, 1; a budget of 40 tokens holds
    # one row of 48 (too long, alone), one of 24, two of 16, and two more of at most 16.
    groups = group_by_tokens([9, 41, 16, 1, 20, 16], max_tokens=40, pad_multiple=8)

    assert as_lists(groups) == [[1], [4], [2, 5], [0, 3]]


def test_order_decides_which_documents_of_one_length_share_a_group() -> None:
    assert as_lists(group_by_tokens([4, 4, 4, 2], 8, 1, np.array([3, 2, 1, 0]))) == [[2, 1], [0, 3]]


@given(
    LENGTHS,
    st.integers(1, 60),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_groups_stay_within_the_budget_whatever_the_order(
    lengths: list[int], max_tokens: int, multiple: int, random
) -> None:
    order = np.array(random.sample(range(len(lengths)), len(lengths)), dtype=np.int64)

    groups = as_lists(group_by_tokens(lengths, max_tokens, multiple, order))

    assert Counter(member for group in groups for member in group) == Counter(range(len(lengths)))
    for group in groups:
        width = math.ceil(max(lengths[member] for member in group) / multiple) * multiple
        assert len(group) == 1 or len(group) * width <= max_tokens
    assert len(groups) == len(group_by_tokens(lengths, max_tokens, multiple, None))


def test_bounds_close_each_row_with_its_padding() -> None:
    assert document_bounds([[3, 2], [4]], 6) == (0, 3, 5, 6, 10, 12)


def test_bounds_of_full_rows_have_no_padding() -> None:
    assert document_bounds([[3, 2], [5]], 5) == (0, 3, 5, 10)


def test_positions_restart_with_each_document() -> None:
    assert document_positions((0, 3, 5, 6)).tolist() == [0, 1, 2, 0, 1, 0]
