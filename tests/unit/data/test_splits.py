"""How rows are dealt to training, validation and test."""

import time
from collections import Counter
from datetime import UTC, date, datetime
from hashlib import blake2b
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.splits import (
    Split,
    grouped_split,
    hash_split,
    length_bins,
    random_split,
    stratified_split,
    temporal_split,
)
from loralab.errors import DataError

FRACTIONS = st.floats(0, 0.49)
ASKED = st.floats(0.01, 0.49)
SEEDS = st.integers(0, 2**32)


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.val), len(split.test)


def parts(split: Split) -> tuple[list[int], list[int], list[int]]:
    return split.train.tolist(), split.val.tolist(), split.test.tolist()


def deals_every_row_once(split: Split, num_rows: int) -> bool:
    in_order = all(part == sorted(part) for part in parts(split))
    return in_order and sorted(chain(*parts(split))) == list(range(num_rows))


@given(st.integers(3, 200), FRACTIONS, FRACTIONS, SEEDS)
def test_every_row_is_dealt_once(num_rows: int, val: float, test: float, seed: int) -> None:
    split = random_split(num_rows, val, test, seed)
    assert deals_every_row_once(split, num_rows)
    assert len(split.train)
    assert all(part.dtype == np.int64 for part in (split.train, split.val, split.test))


@pytest.mark.parametrize(
    ("num_rows", "val", "test", "expected"),
    [
        (100, 0.05, 0.1, (85, 5, 10)),
        (100, 0.0, 0.1, (90, 0, 10)),
        (100, 0.2, 0.0, (80, 20, 0)),
        (100, 0.0, 0.0, (100, 0, 0)),
        (40, 0.05, 0.05, (36, 2, 2)),
        (3, 0.05, 0.05, (1, 1, 1)),
        (7, 0.001, 0.4, (3, 1, 3)),
        (4, 0.49, 0.49, (1, 1, 2)),
    ],
)
def test_sizes(num_rows: int, val: float, test: float, expected: tuple[int, int, int]) -> None:
    assert sizes(random_split(num_rows, val, test, seed=0)) == expected


def test_same_seed_same_split_and_other_seed_other_split() -> None:
    assert parts(random_split(50, 0.1, 0.1, seed=1)) == parts(random_split(50, 0.1, 0.1, seed=1))
    assert len({str(parts(random_split(50, 0.1, 0.1, seed))) for seed in range(5)}) == 5


def test_rows_are_held_out_from_all_over_the_file() -> None:
    split = random_split(1000, 0.2, 0.2, seed=0)
    for held_out in (split.val, split.test):
        quarters = {row // 250 for row in held_out}
        assert quarters == {0, 1, 2, 3}


@pytest.mark.parametrize("num_rows", [0, 1, 2])
def test_too_few_rows_are_refused_with_the_fix(num_rows: int) -> None:
    with pytest.raises(DataError):
        stratified_split(["a"] * num_rows, 0.05, 0.05, seed=0)
    with pytest.raises(DataError) as error:
        random_split(num_rows, 0.05, 0.05, seed=0)
    assert str(error.value) == (
        f"{num_rows} usable rows are too few to hold out validation and test rows: "
        "add rows, or give data.val_path and data.test_path."
    )


@given(st.lists(st.sampled_from("abcde"), min_size=3, max_size=120), FRACTIONS, FRACTIONS, SEEDS)
def test_strata_are_dealt_in_the_given_shares(strata: list[str], val: float, test: float, seed: int) -> None:
    split = stratified_split(strata, val, test, seed)
    assert deals_every_row_once(split, len(strata))
    assert sizes(split) == sizes(random_split(len(strata), val, test, seed))
    for stratum, size in Counter(strata).items():
        quota = size * len(split.val) / len(strata)
        assert abs(sum(strata[row] == stratum for row in split.val) - quota) < 1


def test_stratified_counts_worked_out_by_hand() -> None:
    # Quotas of 10 validation rows: 6.0, 2.5, 1.5 -> 6, 2, 1 and the last to one of the two remainders of 0.5;
    # of 20 test rows: 12, 5, 3.
    strata = ["a"] * 60 + ["b"] * 25 + ["c"] * 15
    seen = set()
    for seed in range(20):
        split = stratified_split(strata, 0.1, 0.2, seed)
        val, test = (Counter(strata[row] for row in part) for part in (split.val, split.test))
        assert test == {"a": 12, "b": 5, "c": 3}
        seen.add((val["a"], val["b"], val["c"]))
    assert seen == {(6, 3, 1), (6, 2, 2)}


def test_rows_of_a_stratum_are_chosen_at_random_and_by_seed() -> None:
    strata = ["a", "b"] * 50
    held_out = [stratified_split(strata, 0.1, 0.1, seed).val.tolist() for seed in range(30)]
    assert held_out[3] == stratified_split(strata, 0.1, 0.1, 3).val.tolist()
    assert len(set(map(str, held_out))) == 30
    assert len(set(chain(*held_out))) > 80


def test_single_rows_of_many_strata_are_held_out_fairly() -> None:
    # Twenty strata of one row: validation gets one of them, each in about one of 20 seeds.
    strata = [f"s{index}" for index in range(20)]
    chosen = Counter(int(stratified_split(strata, 0.05, 0.05, seed).val[0]) for seed in range(400))
    assert len(chosen) == 20
    assert max(chosen.values()) < 50


def test_length_bins_hold_equal_shares_and_name_their_range() -> None:
    lengths = list(range(1, 101))
    bins = length_bins(lengths, num_bins=4)
    assert Counter(bins) == {"1-25": 25, "26-50": 25, "51-75": 25, "76-100": 25}
    assert bins[24:26] == ["1-25", "26-50"]


def test_length_bins_keep_equal_lengths_together() -> None:
    assert length_bins([7] * 9 + [30], num_bins=5) == ["7-7"] * 9 + ["30-30"]
    assert length_bins([]) == []


@given(st.lists(st.integers(0, 12), min_size=3, max_size=150), ASKED, ASKED, SEEDS)
def test_no_group_straddles_and_no_part_is_empty(
    groups: list[int], val: float, test: float, seed: int
) -> None:
    if len(set(groups)) < 3:
        with pytest.raises(DataError):
            grouped_split(groups, val, test, seed)
        return
    split = grouped_split(groups, val, test, seed)
    assert deals_every_row_once(split, len(groups))
    assert all(sizes(split))
    owners = [{groups[row] for row in part} for part in parts(split)]
    assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]


def test_small_groups_fill_their_shares_exactly_and_one_part_needs_two_groups_only() -> None:
    assert sizes(grouped_split([row // 2 for row in range(200)], 0.1, 0.2, seed=5)) == (140, 20, 40)
    assert sizes(grouped_split(["a", "a", "b"], 0.0, 0.3, seed=0)) == (2, 0, 1)


def test_large_groups_do_not_overshoot_by_more_than_half_of_themselves() -> None:
    groups = [group for group in range(30) for _ in range(group + 1)]
    for seed in range(30):
        _, val, test = sizes(grouped_split(groups, 0.1, 0.1, seed))
        assert abs(val - 46.5) <= 15
        assert abs(test - 46.5) <= 15


def test_a_dominant_group_trains_and_small_ones_are_shared() -> None:
    groups = ["big"] * 50 + ["large"] * 49 + ["x", "y", "z"]
    for seed in range(10):
        train, val, test = sizes(grouped_split(groups, 0.05, 0.05, seed))
        assert train == 99
        assert {val, test} == {1, 2}


def test_too_few_groups_or_times_are_refused_with_the_fix() -> None:
    with pytest.raises(DataError) as error:
        grouped_split(["a", "b"] * 20, 0.05, 0.05, seed=0)
    assert str(error.value) == (
        "data.split.by gives 2 groups, too few for 3 parts that share none: choose a field with more values "
        "or data.split.method=random, or give data.val_path and data.test_path."
    )
    with pytest.raises(
        DataError, match=r"^data.split.by gives 2 different times, too few for 3 parts: choose"
    ):
        temporal_split([1, 2, 2, 1], 0.1, 0.1)


@given(st.lists(st.integers(0, 40), min_size=3, max_size=150), ASKED, ASKED)
def test_the_newest_rows_are_tested_and_equal_times_stay_together(
    times: list[int], val: float, test: float
) -> None:
    if len(set(times)) < 3:
        with pytest.raises(DataError):
            temporal_split(times, val, test)
        return
    split = temporal_split(times, val, test)
    assert deals_every_row_once(split, len(times))
    train_times, val_times, test_times = ([times[row] for row in part] for part in parts(split))
    assert max(train_times) < min(val_times) <= max(val_times) < min(test_times)


def test_temporal_parts_worked_out_by_hand() -> None:
    # Newest first: 9 (2 rows), 8 (1), 7 (3), 5 (1), 1 (3). Test wants 2.5 rows: 2 and 3 are as close, the
    # fewer are taken. Validation wants 3: 1 row or 1 + 3 = 4, which is closer.
    times = [1, 9, 7, 8, 1, 7, 5, 9, 7, 1]
    assert parts(temporal_split(times, 0.3, 0.25)) == ([0, 4, 6, 9], [2, 3, 5, 8], [1, 7])
    assert parts(temporal_split(times, 0.0, 0.3)) == ([0, 2, 4, 5, 6, 8, 9], [], [1, 3, 7])


@pytest.mark.parametrize(
    "times",
    [
        [3, 1.5, 2, 10],
        ["3", "1.5", "2", "10"],
        ["2024-02-01", "2023-12-31", "2024-01-01", "2024-10-01"],
        ["2024-01-01T01:00:00Z", "2024-01-01T01:30:00+01:00", "2024-01-01 00:45", "20240102"],
        [datetime(2024, 1, 3, tzinfo=UTC), datetime(2024, 1, 1), date(2024, 1, 2), "2024-01-04"],
    ],
)
def test_numbers_and_iso_8601_are_times(times: list[float | str | date]) -> None:
    # Row 3 is the newest, then row 0, row 2, row 1.
    assert parts(temporal_split(times, 0.25, 0.25)) == ([1, 2], [0], [3])


def test_times_without_a_zone_are_utc_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        split = temporal_split(["2024-01-01T00:00", "2024-01-01T01:00Z", "2024-01-01T02:00"], 0.3, 0.3)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert parts(split) == ([0], [1], [2])


@pytest.mark.parametrize(
    ("times", "row", "value"),
    [
        ([1, 2, "2024-01-01", 4], 3, "'2024-01-01'"),
        (["2024-01-01", "2024-01-02", 7, "2024-01-03"], 3, "7"),
        (["2024-01-01", "yesterday", "2024-01-03"], 2, "'yesterday'"),
        ([1, None, 3], 2, "None"),
        ([True, 2, 3], 1, "True"),
        ([1, float("nan"), 3], 2, "nan"),
    ],
)
def test_a_time_that_cannot_be_read_is_named(times: list[float | str], row: int, value: str) -> None:
    with pytest.raises(DataError) as error:
        temporal_split(times, 0.05, 0.05)
    assert str(error.value) == (
        f"data.split.by: {value} in row {row} is no time like the other rows': data.split.method=temporal "
        "needs a number in every row, or in every row a date or time in ISO 8601 such as 2024-05-31 or "
        "2024-05-31T12:00:00Z."
    )


def content(index: int) -> bytes:
    return blake2b(str(index).encode(), digest_size=16).digest()


@given(st.integers(40, 200), st.integers(0, 60), st.randoms(use_true_random=False))
def test_adding_and_reordering_rows_moves_no_row(num_rows: int, num_new: int, random: object) -> None:
    keys = [content(index) for index in range(num_rows)]
    more = keys + [content(-index - 1) for index in range(num_new)]
    random.shuffle(more)  # type: ignore[attr-defined]
    old, new = hash_split(keys, 0.3, 0.3, seed=7), hash_split(more, 0.3, 0.3, seed=7)
    assert deals_every_row_once(new, len(more))
    for before, after in zip(parts(old), parts(new), strict=True):
        assert {keys[row] for row in before} == {more[row] for row in after} & set(keys)


def test_the_hash_alone_decides() -> None:
    keys = [content(index) for index in range(500)]
    split = hash_split(keys, 0.1, 0.2, seed=3)
    for row, key in enumerate(keys):
        digest = blake2b(key + b"\x03" + bytes(7), digest_size=8).digest()
        share = sum(byte * 256.0**place for place, byte in enumerate(digest)) / 2**64
        part = split.test if share < 0.2 else split.val if share < 0.3 else split.train
        assert row in part.tolist()


def test_hash_shares_are_met_on_average_and_follow_the_seed() -> None:
    keys = [content(index) for index in range(20_000)]
    # Four standard deviations of a binomial count of 20,000 at 0.1.
    assert abs(len(hash_split(keys, 0.1, 0.1, seed=0).val) - 2000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5
    assert parts(hash_split(keys, 0.1, 0.1, seed=0))[1] != parts(hash_split(keys, 0.1, 0.1, seed=1))[1]


def test_a_part_that_the_hash_leaves_empty_is_refused_with_the_fix() -> None:
    with pytest.raises(DataError) as error:
        hash_split([content(index) for index in range(3)], 0.0, 0.0001, seed=0)
    assert str(error.value) == (
        "data.split.method=hash: none of the 3 rows falls into the share of data.test_fraction=0.0001: "
        "make it larger, or choose data.split.method=random."
    )
