"""Steps are cut into micro-batches by rows or by tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.cutting import MicroBatchSize, cut, deal


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


def test_rows_are_dealt_there_and_back_again() -> None:
    # By width: row 4 (9 tokens) to the first, 1 (7) and 0 (5) to the second, 3 (3) and 2 (2) to the first.
    assert deal([5, 7, 2, 3, 9], 2) == [[4, 3, 2], [1, 0]]
    assert deal([5], 3) == [[0], [], []]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 8))
def test_every_row_is_dealt_once_and_nobody_gets_two_more(widths: list[int], num_shares: int) -> None:
    shares = deal(widths, num_shares)
    assert sorted(place for share in shares for place in share) == list(range(len(widths)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_rows_where_they_are_short() -> None:
    widths = [80, 48, 32, 16, 16, 16]
    # One row of 80, as training takes; two of at most 48 (96 <= 100); the last three have 48.
    expected = [range(0, 1), range(1, 3), range(3, 6)]
    assert cut(widths, MicroBatchSize(rows=1, fill_tokens=100)) == expected
    assert cut(widths, MicroBatchSize(tokens=50, fill_tokens=100)) == expected
    assert cut(widths, MicroBatchSize(tokens=200, fill_tokens=100)) == [range(0, 2), range(2, 6)]
