"""How often the rows of several sources are seen in an epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.mixing import SourceShare, example_counts, mix
from loralab.errors import DataError


def by_epochs(num_rows: int, epochs: float = 1.0) -> SourceShare:
    return SourceShare(num_rows, weight=None, rows=None, epochs=epochs)


def by_weight(num_rows: int, weight: float) -> SourceShare:
    return SourceShare(num_rows, weight=weight, rows=None, epochs=1.0)


def by_rows(num_rows: int, rows: int) -> SourceShare:
    return SourceShare(num_rows, weight=None, rows=rows, epochs=1.0)


def test_every_row_once_is_the_plain_concatenation() -> None:
    mixture = mix([by_epochs(3), by_epochs(4)], seed=0)
    assert mixture.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert mixture.dtype == np.int64


def test_whole_epochs_repeat_every_row() -> None:
    assert mix([by_epochs(2), by_epochs(2, epochs=3)], seed=0).tolist() == [0, 1, 2, 2, 2, 3, 3, 3]


def test_fractional_epochs_are_whole_passes_and_a_sample() -> None:
    seen = Counter(mix([by_epochs(7), by_epochs(10, epochs=2.3)], seed=1).tolist())
    assert {seen[row] for row in range(7)} == {1}
    assert sorted(seen[row] for row in range(7, 17)) == [2] * 7 + [3] * 3


@pytest.mark.parametrize(
    ("num_rows", "epochs", "expected"), [(50, 1.1, 55), (10, 0.25, 3), (10, 0.01, 1), (0, 2, 0)]
)
def test_examples_of_fractional_epochs(num_rows: int, epochs: float, expected: int) -> None:
    assert example_counts([by_epochs(num_rows, epochs)]) == [expected]


def test_rows_are_met_exactly_with_and_without_repeats() -> None:
    seen = Counter(mix([by_rows(5, 13), by_rows(5, 2)], seed=0).tolist())
    assert sorted(seen[row] for row in range(5)) == [2, 2, 3, 3, 3]
    assert sorted(seen[row] for row in range(5, 10)) == [0, 0, 0, 1, 1]


def test_weights_deal_as_many_examples_as_the_weighted_sources_have_rows() -> None:
    # 10 + 20 rows dealt 2:1, whatever the third source, which has no weight, gives.
    shares = [by_weight(10, 1.0), by_weight(20, 0.5), by_epochs(4, 2)]
    assert example_counts(shares) == [20, 10, 8]
    seen = Counter(mix(shares, seed=0).tolist())
    assert [seen[row] for row in range(10)] == [2] * 10
    assert sorted(seen[row] for row in range(10, 30)) == [0] * 10 + [1] * 10


def test_largest_remainders_get_what_is_left() -> None:
    # 10 by 3:3:1 -> quotas 4.29, 4.29, 1.43: 4, 4, 1 and the last one to the third.
    assert example_counts([by_weight(4, 3), by_weight(3, 3), by_weight(3, 1)]) == [4, 4, 2]
    # 100 by 0.1:0.2:0.7 in floating point.
    assert example_counts([by_weight(100, 0.1), by_weight(0, 0.0), by_weight(0, 0.0)]) == [100, 0, 0]
    assert example_counts([by_weight(50, 0.1), by_weight(25, 0.2), by_weight(25, 0.7)]) == [10, 20, 70]


def test_rows_win_over_a_weight() -> None:
    share = SourceShare(10, weight=5.0, rows=3, epochs=2.0)
    assert example_counts([share, by_weight(6, 1.0)]) == [3, 6]


def test_another_source_changes_no_sample_of_the_others() -> None:
    alone = mix([by_rows(100, 30)], seed=4)
    assert mix([by_rows(100, 30), by_epochs(50, 0.5)], seed=4)[:30].tolist() == alone.tolist()
    assert mix([by_rows(100, 30)], seed=5).tolist() != alone.tolist()


def test_two_sources_are_sampled_apart() -> None:
    mixture = mix([by_rows(100, 30), by_rows(100, 30)], seed=4)
    assert (mixture[30:] - 100).tolist() != mixture[:30].tolist()


def test_a_larger_sample_contains_the_smaller_one() -> None:
    assert set(mix([by_rows(100, 30)], seed=4).tolist()) < set(mix([by_rows(100, 31)], seed=4).tolist())


SHARES = st.builds(
    SourceShare,
    num_rows=st.integers(1, 30),
    weight=st.none() | st.floats(0.01, 10),
    rows=st.none() | st.integers(0, 80),
    epochs=st.floats(0.01, 4),
)


@given(st.lists(SHARES, max_size=5), st.integers(0, 2**32))
def test_counts_are_met_and_repeats_are_even(shares: list[SourceShare], seed: int) -> None:
    mixture = mix(shares, seed)
    assert mixture.tolist() == sorted(mixture.tolist())
    seen = np.bincount(mixture, minlength=sum(share.num_rows for share in shares)).tolist()
    counts = example_counts(shares)
    for share, count in zip(shares, counts, strict=True):
        of_source, seen = seen[: share.num_rows], seen[share.num_rows :]
        assert sum(of_source) == count
        assert max(of_source) - min(of_source) <= 1
    assert not seen
    weighted = [
        index for index, share in enumerate(shares) if share.rows is None and share.weight is not None
    ]
    assert sum(counts[index] for index in weighted) == sum(shares[index].num_rows for index in weighted)


@pytest.mark.parametrize(("share", "key"), [(by_rows(0, 10), "rows=10"), (by_weight(0, 0.5), "weight=0.5")])
def test_a_source_without_rows_is_refused_with_the_fix(share: SourceShare, key: str) -> None:
    with pytest.raises(DataError) as error:
        mix([by_epochs(3), share], seed=0)
    assert str(error.value) == (
        f"data.sources[1].{key} asks for examples, but no row of that source is left: see what left its rows "
        "out, or remove the source."
    )
