"""What documents begin with, left out but once, against layouts written out by hand."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from loralab.data.collate import common_prefix, pack_examples, pad_examples, without_padding, worth_sharing
from loralab.data.masking import Example
from loralab.data.records import Conversation, Message
from loralab.data.shared_prefix import copies_of_documents, without_repeats

TEXT = Conversation((Message("text", "a"),), "rows.jsonl", 1)


def example(*ids: int) -> Example:
    return Example(list(ids), [-100, *ids[1:]], TEXT)


@pytest.mark.parametrize(
    ("rows", "shared"),
    [
        ([[7, 8, 9], [7, 8, 5]], 2),
        ([[7, 8], [7, 8, 5], [7, 8, 1, 4]], 2),
        ([[7, 8], [7, 8]], 2),
        ([[7, 8], [8, 7]], 0),
        ([[7, 8, 9], [7, 2, 9], [7, 8, 9]], 1),
        # There is nothing to share with.
        ([[7, 8]], 0),
    ],
)
def test_a_common_beginning_is_what_all_begin_with(rows: list[list[int]], shared: int) -> None:
    examples = [example(*row) for row in rows]
    assert common_prefix(examples) == shared
    assert pad_examples(examples, 0).shared_prefix == shared


def test_the_beginning_stands_once_ahead_of_every_rest() -> None:
    rows = [example(7, 8, 1, 2, 3), example(7, 8, 4), example(7, 8, 5, 6)]
    batch = without_padding(pad_examples(rows, 0))
    # Left as long as it is: what is left of it will be filled up.
    assert batch.bounds == (0, 5, 8, 12)

    short = without_repeats(batch)

    assert short is not None
    filler = [0] * 8
    assert short.input_ids.tolist() == [[7, 8, 1, 2, 3, 4, 5, 6, *filler]]
    assert short.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 2, 3, *filler]]
    assert short.bounds == (0, 2, 5, 6, 8, 16)
    assert short.places.tolist() == [[0, 1, 2, 3, 4, 0, 1, 5, 0, 1, 6, 7]]


def test_padding_of_packed_rows_is_carried_along() -> None:
    """Rows of 16 tokens, the second with 9 of padding, the third with 1, which is less than is shared."""
    shared = [7, 8, 9, 10, 11, 12]
    first, second, third = [*shared, *range(20, 30)], [*shared, 1], [*shared, *range(40, 49)]
    batch = pack_examples([[example(*row)] for row in (first, second, third)], 16, 99)
    assert batch.bounds == (0, 16, 23, 32, 47, 48)

    short = without_repeats(batch)

    assert short is not None
    kept = [*shared, *first[6:], *second[6:], 99, 99, 99, *third[6:]]
    assert short.input_ids.tolist() == [kept + [0] * 3]
    assert short.bounds == (0, 6, 16, 17, 20, 29, 32)
    found, real = short.input_ids[0][short.places], batch.attention_mask == 1
    assert found[real].tolist() == batch.input_ids[real].tolist()


@pytest.mark.parametrize(("shared", "lengths", "expected"), [
    (3, [50, 50], 3),  # 3 of 100 tokens are a copy.
    (2, [50, 50], 0),
    (1, [10] * 4, 1),  # 3 of 40.
    (10, [10], 0),
])  # fmt: skip
def test_few_copies_are_not_worth_leaving_out(shared: int, lengths: list[int], expected: int) -> None:
    assert worth_sharing(shared, lengths) == expected


@pytest.mark.parametrize("length", [16, 20])
def test_documents_that_are_all_alike_run_as_they_are(length: int) -> None:
    rows = [example(*range(1, length + 1))] * 2
    assert without_repeats(without_padding(pad_examples(rows, 0))) is None


def test_nothing_is_left_out_where_that_saves_nothing() -> None:
    packed = pack_examples([[example(7, *range(20, 28)), example(7, 1, 2, 3, 4, 5, 6)]], 16, 99)
    assert packed.shared_prefix == 1
    assert without_repeats(packed) is None
    assert without_repeats(without_padding(pad_examples([example(1, 2), example(2, 1)], 0))) is None
    # Padded rows run as they are.
    assert without_repeats(pad_examples([example(7, 8, 1), example(7, 8, 2)], 0)) is None


@given(
    shared=st.integers(1, 9),
    rests=st.lists(st.integers(0, 30), min_size=2, max_size=6),
)
def test_every_token_is_found_again(shared: int, rests: list[int]) -> None:
    beginning = list(range(1, shared + 1))
    # The first token after it differs, where there is one.
    rows = [
        example(*beginning, *(100 * number + place for place in range(rest)))
        for number, rest in enumerate(rests, start=1)
    ]
    batch = without_padding(pad_examples(rows, 0))
    short = without_repeats(batch)
    assume(short is not None)
    assert short is not None
    assert batch.position_ids is not None
    assert torch.equal(short.input_ids[0][short.places], batch.input_ids)
    assert torch.equal(short.position_ids[0][short.places], batch.position_ids)
    copies = copies_of_documents(short.bounds, torch.device("cpu"))
    whole = short.input_ids[0][copies.places]
    assert torch.equal(whole[copies.kept], short.input_ids[0])
    kept = [row.input_ids for row, rest in zip(rows, rests, strict=True) if rest]
    documents = [
        whole[start:end].tolist() for start, end in zip(copies.bounds, copies.bounds[1:], strict=False)
    ]
    assert documents[: len(kept)] == kept
