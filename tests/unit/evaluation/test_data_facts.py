import numpy as np
import pytest

from loralab.data.layout import Layout
from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.mixing import SourceShare
from loralab.data.prepare import PreparedData, PreparedSplit
from loralab.data.records import Conversation, Message
from loralab.data.report import DataReport, SourceReport
from loralab.data.tally import Tally
from loralab.evaluation.data_facts import (
    Arrangement,
    MixtureLine,
    arrange,
    check_masks,
    mixture_lines,
    show_examples,
)
from loralab.evaluation.data_rows import mixture_rows

CONVERSATION = Conversation((Message("user", "Hi"), Message("assistant", "Yes")), "rows.jsonl", 3)


def example(tokenizer, text, num_learned, source=0):
    """An example of which the last tokens are learned."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    ignored = len(ids) - num_learned
    return Example(ids, [IGNORE_INDEX] * ignored + ids[ignored:], CONVERSATION, source=source)


def layout(lengths, mixture, **options):
    return Layout(np.array(lengths), np.array(mixture), 0, **options)


def test_labels_are_counted_as_by_hand(tokenizer):
    examples = [
        example(tokenizer, "<|im_start|> one two<|im_end|>", 2),
        example(tokenizer, "<|im_start|><|im_start|> one<|im_end|>", 1),
        example(tokenizer, " one two three", 3),  # the first cannot be predicted
    ]
    check = check_masks("train", examples, tokenizer)
    assert (check.part, check.examples, check.looked_at) == ("train", 3, 3)
    assert check.fewest_learned == 1
    assert check.endings == {"<|im_end|>": 2}
    assert check.open_ends == 1
    assert (check.one_bos, check.double_bos) == (1, 1)


def test_the_fewest_learned_is_over_all_examples_and_the_rest_over_the_first(tokenizer):
    long, short = (example(tokenizer, "<|im_start|> one two<|im_end|>", learned) for learned in (3, 1))
    check = check_masks("val", [long] * 500 + [short], tokenizer)
    assert (check.examples, check.looked_at) == (501, 500)
    assert check.fewest_learned == 1
    assert check.endings == {"<|im_end|>": 500}


def test_a_split_without_examples_has_nothing_to_check(tokenizer):
    assert check_masks("test", [], tokenizer).fewest_learned == 0


def test_a_shown_example_names_its_row_and_counts_what_is_learned(tokenizer):
    shown = show_examples([example(tokenizer, "<|im_start|> one<|im_end|>", 3, 1)], ["a", "b"], tokenizer)[0]
    assert (shown.place, shown.source, shown.num_learned) == ("rows.jsonl line 3", "b", 2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Arrangement("examples", 3, 1.0)),
        ({"pack_length": 8}, Arrangement("packed", 2, 13 / 16)),  # 6 alone, 4 + 3
        # 16 tokens hold one padded example: groups of one.
        ({"batch_tokens": 16}, Arrangement("grouped", 3, 1.0)),
        # 48 tokens hold three: 13 of 3 x 6 tokens are text before they are rounded up.
        ({"batch_tokens": 48}, Arrangement("grouped", 1, 13 / 18)),
    ],
)
def test_the_arrangement_says_how_rows_are_filled(options, expected):
    assert arrange(layout([6, 4, 3], [0, 1, 2], **options)) == expected


def prepared(tokenizer, sources, num_shares):
    """Data of which example i has i + 1 tokens to learn and belongs to `sources[i]`."""
    split = PreparedSplit(
        [example(tokenizer, "one two three four", i + 1, source) for i, source in enumerate(sources)], None
    )
    shares = [SourceShare(sources.count(number), None, None, 1.0) for number in range(num_shares)]
    return PreparedData(split, split, split, [], DataReport([], {}, {}), ["a", "b", "val"], shares)


def test_an_epoch_is_counted_by_source(tokenizer):
    data = prepared(tokenizer, [0, 0, 1], 2)
    assert mixture_lines(data, layout([2, 2, 2], [0, 2, 2, 2])) == [
        MixtureLine("a", available=2, taken=1, fewest=0, most=1, unused=1, learned=1),
        MixtureLine("b", available=1, taken=3, fewest=3, most=3, unused=0, learned=9),
    ]


def test_a_source_that_was_read_in_part_says_how_far(tokenizer):
    data = prepared(tokenizer, [0, 0, 1], 2)
    data.report.sources += [
        SourceReport(name, "train", "text", Tally(2), limit=limit)
        for name, limit in (("a", 1000), ("b", None))
    ]
    lines = mixture_lines(data, layout([2, 2, 2], [0, 1, 2]))
    assert [row[0] for row in mixture_rows(lines)] == ["a, first 1,000 rows", "b"]


def test_a_source_of_which_nothing_is_left_takes_part_with_nothing(tokenizer):
    data = prepared(tokenizer, [0], 2)
    assert mixture_lines(data, layout([2], [0]))[1] == MixtureLine("b", 0, 0, 0, 0, 0, 0)


def test_one_source_needs_no_count_unless_its_rows_are_repeated_or_left_unused(tokenizer):
    data = prepared(tokenizer, [0, 0], 1)
    assert mixture_lines(data, layout([2, 2], [0, 1])) == []
    assert mixture_lines(data, layout([2, 2], [1])) == [MixtureLine("a", 2, 1, 0, 1, 1, 2)]
