"""The ledger by hand, and what the gate refuses and in which words."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from loralab.data.gate import Ledger, check_supervision, drop_over_length
from loralab.data.masking import Example, encode
from loralab.data.records import Conversation, Message
from loralab.data.templating import render
from loralab.errors import DataError

IM_START, IM_END = 1, 2
"""Ids of the test tokenizer's special tokens."""


def example(row: int, input_ids: list[int], labels: list[int]) -> Example:
    return Example(input_ids, labels, Conversation((Message("text", "a"),), "rows.jsonl", row))


def of_length(row: int, length: int, supervised: int = 1) -> Example:
    """An example whose last `supervised` tokens are learned."""
    return example(row, [9] * length, [-100] * (length - supervised) + [9] * supervised)


def length_fault(lengths: list[int], max_length: int, max_dropped: float, split: str = "train") -> str:
    examples = [of_length(row, length) for row, length in enumerate(lengths, start=1)]
    with pytest.raises(DataError) as error:
        drop_over_length(examples, max_length, max_dropped, split)
    return str(error.value)


def supervision_fault(tokenizer: PreTrainedTokenizerBase, *examples: Example) -> str:
    with pytest.raises(DataError) as error:
        check_supervision(examples, tokenizer, "train")
    return str(error.value)


def test_ledger_counts_what_was_kept_dropped_and_lost() -> None:
    examples = [of_length(1, 4, 2), of_length(2, 9, 5), of_length(3, 5, 1), of_length(4, 2, 1)]
    kept, ledger = drop_over_length(examples, max_length=5, max_dropped=0.25, split="train")
    assert kept == [examples[0], examples[2], examples[3]]
    assert ledger == Ledger(
        rows=4,
        kept=3,
        truncated=0,
        dropped=1,
        tokens=4 + 5 + 2,
        supervised_tokens=2 + 1 + 1,
        supervised_tokens_lost=5,
        length_p50=4,
        length_max=5,
    )


def test_ledger_does_not_count_the_first_token_as_supervised() -> None:
    _, ledger = drop_over_length([of_length(1, 4, 4), of_length(2, 2, 1)], 8, 0.0, "train")
    assert (ledger.supervised_tokens, ledger.supervised_tokens_lost) == (3 + 1, 0)
    assert ledger.length_p50 == 3


def test_example_of_just_the_longest_length_is_kept() -> None:
    kept, ledger = drop_over_length([of_length(1, 5)], 5, 0.0, "train")
    assert len(kept) == 1
    assert ledger.dropped == 0


def test_too_many_long_rows_are_refused_with_rows_and_two_fixes() -> None:
    assert length_fault([3, 9, 4, 12], max_length=5, max_dropped=0.25, split="val") == (
        "2 of 4 val rows are longer than data.max_length=5 tokens (the longest has 12): rows.jsonl row 2, "
        "rows.jsonl row 4. Use data.max_length=12, or allow the loss with data.max_dropped=0.5."
    )


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
    examples = [of_length(row, length) for row, length in enumerate(lengths)]
    kept, ledger = drop_over_length(examples, 5, share, "train")
    assert (len(kept), ledger.dropped) == (num_short, num_long)
    kept, ledger = drop_over_length(examples, 9, 0.0, "train")
    assert (len(kept), ledger.dropped) == (num_short + num_long, 0)


def test_share_on_the_limit_is_allowed() -> None:
    # In floating point 0.29 * 100 is below 29.
    examples = [of_length(row, 9 if row < 29 else 1) for row in range(100)]
    _, ledger = drop_over_length(examples, 5, 0.29, "train")
    assert ledger.dropped == 29


def test_nothing_left_is_refused_whatever_may_be_dropped() -> None:
    assert length_fault([9, 8], max_length=5, max_dropped=1.0) == (
        "2 of 2 train rows are longer than data.max_length=5 tokens (the longest has 9): rows.jsonl row 1, "
        "rows.jsonl row 2. Use data.max_length=9."
    )


def test_good_examples_pass(tokenizer: PreTrainedTokenizerBase) -> None:
    check_supervision(
        [
            example(1, [IM_START, 9, 9, IM_END, 8], [-100, -100, 9, IM_END, -100]),
            example(2, [9, IM_END], [9, IM_END]),
        ],
        tokenizer,
        "train",
    )


def test_rows_with_nothing_to_learn_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    good = example(1, [9, IM_END], [-100, IM_END])
    assert supervision_fault(tokenizer, good, example(2, [9, 9], [-100, -100])) == (
        "1 of 2 train rows have no token to learn: rows.jsonl row 2. Mend the rows or the chat template."
    )


def test_row_whose_only_label_is_the_first_token_has_nothing_to_learn(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert "1 of 1 train rows have no token to learn: rows.jsonl row 7." in supervision_fault(
        tokenizer, example(7, [IM_END, 9], [IM_END, -100])
    )


def test_stop_token_that_is_read_but_not_learned_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    assert supervision_fault(tokenizer, example(3, [9, 9, IM_END], [-100, 9, -100])) == (
        "1 of 1 train rows do not learn their end-of-turn token: rows.jsonl row 3. "
        "Mend the rows or the chat template."
    )


def test_text_of_a_tokenizer_without_end_token_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    made = Conversation((Message("text", "Paris."),), "rows.jsonl", 1)
    fault = supervision_fault(endless, *encode(endless, [render(endless, made)], [made]))
    assert "do not learn their end-of-turn token" in fault


def test_two_bos_tokens_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    doubled = example(5, [IM_START, IM_START, 9, IM_END], [-100, -100, 9, IM_END])
    assert supervision_fault(tokenizer, doubled) == (
        "1 of 1 train rows begin with two beginning-of-sequence tokens: rows.jsonl row 5. "
        "Mend the rows or the chat template."
    )


def test_text_that_already_begins_with_bos_is_refused_where_the_tokenizer_adds_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    adding = copy.deepcopy(tokenizer)
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", IM_START)]
    )
    made = Conversation((Message("text", "<|im_start|>Paris."),), "rows.jsonl", 1)
    fault = supervision_fault(adding, *encode(adding, [render(adding, made)], [made]))
    assert "begin with two beginning-of-sequence tokens: rows.jsonl row 1" in fault


def test_every_kind_of_fault_is_told_at_once(tokenizer: PreTrainedTokenizerBase) -> None:
    silent = [example(row, [9, 9], [-100, -100]) for row in (1, 2, 3, 4)]
    endless = example(5, [9, 9], [-100, 9])
    doubled = example(6, [IM_START, IM_START, IM_END], [-100, -100, IM_END])
    assert supervision_fault(tokenizer, *silent, endless, doubled) == (
        "4 of 6 train rows have no token to learn: rows.jsonl row 1, rows.jsonl row 2, rows.jsonl row 3 "
        "and 1 more; 1 of 6 train rows do not learn their end-of-turn token: rows.jsonl row 5; "
        "1 of 6 train rows begin with two beginning-of-sequence tokens: rows.jsonl row 6. "
        "Mend the rows or the chat template."
    )
