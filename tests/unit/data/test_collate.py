"""Padding and micro-batches, against tensors written out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.collate import collate_step, pack_examples, pad_examples, unlearned, without_padding
from loralab.data.cutting import MicroBatchSize
from loralab.data.masking import Example
from loralab.data.records import Conversation, Message

PAD = 99
TEXT = Conversation((Message("text", "a"),), "rows.jsonl", 1)


def example(*labels: int) -> Example:
    """Token ids 1, 2, 3, ... with these labels."""
    return Example(list(range(1, len(labels) + 1)), list(labels), TEXT)


def of_lengths(*lengths: int) -> list[Example]:
    return [Example([length] * length, [-100] + [length] * (length - 1), TEXT) for length in lengths]


def wide(rows: list[list[int]], value: int, width: int = 16) -> list[list[int]]:
    """The rows filled up to a width: 16 for anything of up to 16 tokens."""
    return [row + [value] * (width - len(row)) for row in rows]


def test_short_rows_are_padded_on_the_right() -> None:
    batch = pad_examples([example(-100, 2, 3), example(-100, 2, 3, 4, -100), example(1)], PAD)
    assert batch.input_ids.tolist() == wide([[1, 2, 3], [1, 2, 3, 4, 5], [1]], PAD)
    assert batch.attention_mask.tolist() == wide([[1, 1, 1], [1, 1, 1, 1, 1], [1]], 0)
    assert batch.labels.tolist() == wide([[-100, 2, 3], [-100, 2, 3, 4, -100], [1]], -100)


def test_width_is_the_next_multiple_of_sixteen() -> None:
    widths = [pad_examples(of_lengths(length), PAD).input_ids.shape[1] for length in (1, 16, 17, 40)]
    assert widths == [16, 16, 32, 48]


def test_pad_id_that_is_also_a_real_token_keeps_that_token() -> None:
    batch = pad_examples([example(-100, 2), example(-100, 2, 3)], pad_id=2)
    assert batch.input_ids.tolist() == wide([[1, 2], [1, 2, 3]], 2)
    assert batch.attention_mask.tolist() == wide([[1, 1], [1, 1, 1]], 0)
    assert batch.labels.tolist() == wide([[-100, 2], [-100, 2, 3]], -100)


def test_step_is_cut_into_micro_batches_with_the_longest_first() -> None:
    batch = collate_step(of_lengths(2, 5, 3, 4, 1), step=7, size=MicroBatchSize(rows=2), pad_id=PAD)
    assert [micro.input_ids.tolist() for micro in batch.micro_batches] == [
        wide([[5, 5, 5, 5, 5], [4, 4, 4, 4]], PAD),
        wide([[3, 3, 3], [2, 2]], PAD),
        wide([[1]], PAD),
    ]
    assert batch.step == 7


def test_step_counts_its_tokens_without_padding() -> None:
    batch = collate_step(of_lengths(2, 5, 3), step=0, size=MicroBatchSize(rows=2), pad_id=PAD)
    assert batch.tokens == 2 + 5 + 3
    assert batch.supervised_tokens == 1 + 4 + 2


def test_first_token_of_a_text_is_not_counted_as_supervised() -> None:
    examples = [example(1, 2, 3), example(1, -100)]
    batch = collate_step(examples, step=0, size=MicroBatchSize(rows=2), pad_id=PAD)
    assert batch.supervised_tokens == 2


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 13))
def test_micro_batch_size_changes_no_count_and_loses_no_token(lengths: list[int], size: int) -> None:
    batch = collate_step(of_lengths(*lengths), step=0, size=MicroBatchSize(rows=size), pad_id=PAD)
    full, rest = divmod(len(lengths), size)
    assert [len(micro.input_ids) for micro in batch.micro_batches] == [size] * full + [rest] * (rest > 0)
    supervised = sum(int((micro.labels[:, 1:] != -100).sum()) for micro in batch.micro_batches)
    assert batch.supervised_tokens == supervised == sum(lengths) - len(lengths)
    assert batch.tokens == sum(int(micro.attention_mask.sum()) for micro in batch.micro_batches)
    kept = [row[0] for micro in batch.micro_batches for row in micro.input_ids.tolist()]
    assert kept == sorted(lengths, reverse=True)


def test_packed_row_holds_its_examples_end_to_end() -> None:
    batch = pack_examples([[example(-100, 2, 3), example(1, 2)], [example(-100, 2)]], 8, PAD)
    assert batch.input_ids.tolist() == wide([[1, 2, 3, 1, 2], [1, 2]], PAD, 8)
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 0, 1, 2, 3, 4, 5]]
    # The rows lie end to end: padding is a document of its own.
    assert batch.bounds == (0, 3, 5, 8, 10, 16)


def test_first_token_of_a_packed_document_is_predicted_by_nothing() -> None:
    batch = pack_examples([[example(-100, 2), example(1, 2, 3)]], 6, PAD)
    assert batch.labels.tolist() == [[-100, 2, -100, 2, 3, -100]]


def test_weights_and_sources_are_laid_out_like_the_labels() -> None:
    weighted = Example([1, 2], [-100, 2], TEXT, weights=[0.0, 0.5], source=3)
    batch = pack_examples([[weighted, example(-100, 2)]], 5, PAD)
    assert batch.weights is not None
    assert batch.weights.tolist() == [[0.0, 0.5, 1.0, 1.0, 1.0]]
    assert batch.sources is not None
    assert batch.sources.tolist() == [[3, 3, 0, 0, 0]]
    plain = pad_examples([example(-100, 2)], PAD)
    assert (plain.weights, plain.sources, plain.bounds) == (None, None, None)


def test_rows_without_padding_lie_end_to_end() -> None:
    weighted = Example([4, 5], [-100, 5], TEXT, weights=[0.0, 0.5], source=1)
    padded = pad_examples([example(1, 2, 3), weighted], PAD)
    assert padded.lengths == (3, 2)
    batch = without_padding(padded)
    filler = [0] * 11
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, *filler]]
    assert batch.attention_mask.tolist() == [[1] * 5 + filler]
    # The first token of each document is predicted by nothing.
    assert batch.labels.tolist() == [[-100, 2, 3, -100, 5] + [-100] * 11]
    assert batch.weights is not None
    assert batch.weights.tolist() == [[1.0, 1.0, 1.0, 0.0, 0.5, *filler]]
    assert batch.sources is not None
    assert batch.sources.tolist() == [[0, 0, 0, 1, 1, *filler]]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, *range(11)]]
    assert batch.bounds == (0, 3, 5, 16)
    assert batch.lengths is None
    assert without_padding(batch) is batch
    assert without_padding(unlearned(padded)).is_counted is False


@pytest.mark.parametrize(("total", "width"), [(16, 16), (17, 32), (256, 256), (257, 320), (321, 384)])
def test_few_widths_are_left_of_many_sums_of_tokens(total: int, width: int) -> None:
    rows = pad_examples(of_lengths(total - 9, 9), PAD)
    batch = without_padding(rows)
    assert batch.input_ids.shape == (1, width)
    assert batch.bounds is not None
    assert batch.bounds[-1] == width


def test_step_is_divided_by_the_weights_of_its_supervised_tokens() -> None:
    weighted = Example([1, 2, 3], [-100, 2, 3], TEXT, weights=[0.0, 0.5, 2.0])
    batch = collate_step([weighted, example(-100, 2)], step=0, size=MicroBatchSize(rows=1), pad_id=PAD)
    assert batch.loss_weight == 0.5 + 2.0 + 1.0
    assert batch.supervised_tokens == 3
