"""The ledger by hand, and what the gate refuses and in which words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.gate import (
    DOUBLE_BOS,
    NO_STOP,
    NOTHING_TO_LEARN,
    LengthCount,
    check_lengths,
    check_supervision,
    find_gate_faults,
    make_ledger,
)
from loralab.data.masking import Encoded
from loralab.errors import DataError

BOS, STOP = 1, 2
STOPS = frozenset((BOS, STOP))


def counted(lengths: list[int], max_length: int, truncated: int = 0) -> LengthCount:
    """What dropping rows over the limit counts, but for `truncated` of them that are cut."""
    places = [f"rows.jsonl row {row}" for row, length in enumerate(lengths, 1) if length > max_length]
    return LengthCount(
        rows=len(lengths),
        truncated=truncated,
        dropped=len(places) - truncated,
        lengths=lengths,
        too_long=places,
    )


def length_fault(lengths: list[int], max_length: int, max_dropped: float, split: str = "train") -> str:
    count = counted(lengths, max_length)
    with pytest.raises(DataError) as error:
        check_lengths(count, count.rows - count.dropped, (max_length, max_dropped), split)
    return str(error.value)


def faults(input_ids: list[int], *spans: tuple[int, int], ends_open: bool = False) -> list[str]:
    encoded = Encoded(input_ids, tuple((start, end, 1.0) for start, end in spans))
    return find_gate_faults(encoded, ends_open, STOPS, BOS)


def test_ledger_counts_what_was_kept_cut_dropped_and_lost() -> None:
    count = LengthCount(
        rows=5, truncated=1, dropped=1, supervised_lost=7, lengths=[4, 9, 5, 2, 8], filtered=1
    )
    ledger = make_ledger(count, np.array([4, 5, 5]), np.array([2, 1, 3]))
    assert (ledger.rows, ledger.kept, ledger.truncated, ledger.dropped, ledger.examples) == (5, 3, 1, 1, 3)
    assert (ledger.tokens, ledger.supervised_tokens, ledger.supervised_tokens_lost) == (14, 6, 7)
    assert (ledger.length_p50, ledger.length_max) == (5, 5)


def test_histogram_counts_every_row_in_bins_of_equal_width() -> None:
    ledger = make_ledger(LengthCount(rows=4, lengths=[1, 47, 48, 95]), np.array([1]), np.array([1]))
    # The longest row is 95: 24 bins of 4 tokens, the last from 92 to below 96.
    assert ledger.histogram["edges"] == list(range(0, 100, 4))
    counts = ledger.histogram["counts"]
    assert {bin: count for bin, count in enumerate(counts) if count} == {0: 1, 11: 1, 12: 1, 23: 1}


def test_counts_of_chunks_add_up() -> None:
    total = LengthCount()
    for chunk in (counted([3, 9], 5), counted([12, 1, 1], 5, truncated=1)):
        total.add(chunk)
    assert (total.rows, total.dropped, total.truncated, total.lengths) == (5, 1, 1, [3, 9, 12, 1, 1])
    assert total.too_long == ["rows.jsonl row 2", "rows.jsonl row 1"]


def test_too_many_long_rows_are_refused_with_rows_and_two_fixes() -> None:
    assert length_fault([3, 9, 4, 12], max_length=5, max_dropped=0.25, split="val") == (
        "2 of 4 val rows are longer than data.max_length=5 tokens (the longest has 12): rows.jsonl row 2, "
        "rows.jsonl row 4. Use data.max_length=12, or cut chats with data.over_length=cut_response (or "
        "cut_oldest, cut_prompt) and data.max_dropped=0.5, or allow the loss with data.max_dropped=0.5."
    )


@pytest.mark.parametrize(
    ("policy", "long_texts", "said"),
    [
        ("drop", 2, "=12, or cut plain texts into windows with data.over_length=window, or"),
        ("window", 0, "window shortens plain texts only, and 2 of the rows are chats. Use"),
        ("cut_prompt", 1, "cut_prompt shortens chats only, and 1 of the rows are plain texts."),
        ("cut_response", 0, ". Use data.max_length=12, or allow the loss with data.max_dropped=0.5."),
        ("raise", 0, "or allow the loss with data.over_length=drop and data.max_dropped=0.5."),
    ],
)
def test_the_advice_fits_the_kind_of_the_long_rows(policy: str, long_texts: int, said: str) -> None:
    count = counted([3, 9, 4, 12], 5)
    count.policy, count.long_texts = policy, long_texts
    with pytest.raises(DataError) as error:
        check_lengths(count, 2, (5, 0.0), "train")
    assert said in str(error.value)


def test_only_the_first_three_rows_are_named() -> None:
    assert "rows.jsonl row 1, rows.jsonl row 2, rows.jsonl row 3 and 2 more. Use" in length_fault(
        [9, 9, 9, 9, 9, 1], max_length=5, max_dropped=0.0
    )


def test_share_that_is_advised_is_rounded_up() -> None:
    # 1 / 3 = 0.3333...: 0.333 would be refused again.
    assert length_fault([1, 1, 9], 5, 0.0).endswith("with data.max_dropped=0.334.")


@given(st.integers(1, 60), st.integers(1, 60))
def test_advice_is_enough(num_long: int, num_short: int) -> None:
    lengths = [9] * num_long + [1] * num_short
    share = float(length_fault(lengths, 5, 0.0).rpartition("data.max_dropped=")[2].rstrip("."))
    check_lengths(counted(lengths, 5), num_short, (5, share), "train")
    check_lengths(counted(lengths, 9), num_long + num_short, (9, 0.0), "train")


def test_rows_that_are_cut_count_as_lost() -> None:
    count = counted([9, 9, 1, 1], 5, truncated=1)
    check_lengths(count, 3, (5, 0.5), "train")
    with pytest.raises(DataError, match="2 of 4 train rows are longer"):
        check_lengths(count, 3, (5, 0.4), "train")


def test_share_on_the_limit_is_allowed() -> None:
    # In floating point 0.29 * 100 is below 29.
    check_lengths(counted([9] * 29 + [1] * 71, 5), 71, (5, 0.29), "train")


def test_a_refusal_says_that_rows_that_are_cut_count() -> None:
    count = counted([9, 3], 5, truncated=1)
    count.policy = "cut_response"
    with pytest.raises(DataError, match=r"row 1\. Rows that are cut count as lost\. Use data\.max_length=9"):
        check_lengths(count, 2, (5, 0.05), "train")


def test_nothing_left_is_refused_whatever_may_be_dropped() -> None:
    assert length_fault([9, 8], max_length=5, max_dropped=1.0) == (
        "2 of 2 train rows are longer than data.max_length=5 tokens (the longest has 9): rows.jsonl row 1, "
        "rows.jsonl row 2. Use data.max_length=9, or cut chats with data.over_length=cut_response (or "
        "cut_oldest, cut_prompt) and data.max_dropped=1.0."
    )


def test_good_examples_pass() -> None:
    assert faults([BOS, 9, 9, STOP, 8], (2, 4)) == []
    assert faults([9, STOP], (0, 2)) == []
    assert faults([9, 9, STOP, 8, 9, STOP], (1, 3), (4, 6)) == []


def test_example_with_nothing_to_learn_is_found() -> None:
    assert faults([9, 9]) == [NOTHING_TO_LEARN]
    # The first token can never be predicted.
    assert faults([STOP, 9], (0, 1)) == [NOTHING_TO_LEARN]


def test_stop_token_that_is_not_learned_is_found() -> None:
    assert faults([9, 9, STOP], (1, 2)) == [NO_STOP]
    assert faults([9, STOP, 9, 9], (0, 2), (2, 4)) == [NO_STOP]


def test_answer_that_was_cut_needs_no_stop_token() -> None:
    assert faults([9, 9, 9], (1, 3), ends_open=True) == []


def test_two_bos_tokens_are_found() -> None:
    assert faults([BOS, BOS, 9, STOP], (2, 4)) == [DOUBLE_BOS]


def test_every_kind_of_fault_is_told_at_once() -> None:
    places = [f"rows.jsonl row {row}" for row in range(1, 7)]
    with pytest.raises(DataError) as error:
        check_supervision(
            {NOTHING_TO_LEARN: places[:4], NO_STOP: [places[4]], DOUBLE_BOS: [places[5]]}, 6, "train"
        )
    assert str(error.value) == (
        "4 of 6 train rows have no token to learn: rows.jsonl row 1, rows.jsonl row 2, rows.jsonl row 3 "
        "and 1 more; 1 of 6 train rows do not learn their end-of-turn token: rows.jsonl row 5; "
        "1 of 6 train rows begin with two beginning-of-sequence tokens: rows.jsonl row 6. "
        "Mend the rows, data.supervise or the chat template."
    )


def test_no_fault_is_no_error() -> None:
    check_supervision({}, 6, "train")
