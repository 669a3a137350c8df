"""How rows are dealt to training, validation and test."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.splits import Split, random_split
from loralab.errors import DataError

FRACTIONS = st.floats(0, 0.49)


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.val), len(split.test)


@given(st.integers(3, 200), FRACTIONS, FRACTIONS, st.integers(0, 2**32))
def test_every_row_is_dealt_once(num_rows: int, val: float, test: float, seed: int) -> None:
    split = random_split(num_rows, val, test, seed)
    assert sorted(split.train + split.val + split.test) == list(range(num_rows))
    assert list(split.train) == sorted(split.train)


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
    ],
)
def test_sizes(num_rows: int, val: float, test: float, expected: tuple[int, int, int]) -> None:
    assert sizes(random_split(num_rows, val, test, seed=0)) == expected


def test_same_seed_same_split_and_other_seed_other_split() -> None:
    assert random_split(50, 0.1, 0.1, seed=1) == random_split(50, 0.1, 0.1, seed=1)
    assert len({random_split(50, 0.1, 0.1, seed) for seed in range(5)}) == 5


def test_rows_are_held_out_from_all_over_the_file() -> None:
    split = random_split(1000, 0.2, 0.2, seed=0)
    for held_out in (split.val, split.test):
        quarters = {row // 250 for row in held_out}
        assert quarters == {0, 1, 2, 3}


@pytest.mark.parametrize("num_rows", [0, 1, 2])
def test_too_few_rows_are_refused_with_the_fix(num_rows: int) -> None:
    with pytest.raises(DataError) as error:
        random_split(num_rows, 0.05, 0.05, seed=0)
    assert str(error.value) == (
        f"{num_rows} usable rows are too few to hold out validation and test rows: "
        "add rows, or give data.val_path and data.test_path."
    )
