"""Steps are cut into micro-batches by rows or by tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.cutting import MicroBatchSize, cut


def test_a_count_of_rows_cuts_equal_pieces() -> None:
    assert cut([64, 64, 32, 16, 16], MicroBatchSize(rows=2)) == [range(0, 2), range(2, 4), range(4, 5)]


def test_tokens_allow_more_of_the_narrow_rows() -> None:
    # 128 tokens: two rows of 64, then four of 32, then the rest.
    widths = [64, 64, 32, 32, 32, 32, 16]
    assert cut(widths, MicroBatchSize(tokens=128)) == [range(0, 2), range(2, 6), range(6, 7)]


def test_a_row_above_the_budget_goes_alone() -> None:
    assert cut([256, 64], MicroBatchSize(tokens=100)) == [range(0, 1), range(1, 2)]


@given(
    st.lists(st.integers(1, 40).map(lambda n: 16 * n), max_size=30).map(lambda w: sorted(w, reverse=True)),
    st.integers(16, 2000),
)
def test_every_row_is_in_one_piece_and_pieces_keep_the_budget(widths: list[int], tokens: int) -> None:
    pieces = cut(widths, MicroBatchSize(tokens=tokens))
    assert [place for piece in pieces for place in piece] == list(range(len(widths)))
    for piece in pieces:
        assert len(piece) == 1 or len(piece) * widths[piece[0]] <= tokens


@pytest.mark.parametrize(("width", "expected"), [(10, 5), (50, 1), (51, 1)])
def test_rows_of_a_width(width: int, expected: int) -> None:
    assert MicroBatchSize(tokens=50).num_rows(width) == expected
