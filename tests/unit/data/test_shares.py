"""How documents are dealt to threads, against deals written out by hand."""

import pytest
import torch

from loralab.data import shares
from loralab.data.collate import pack_examples, pad_examples
from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.records import Conversation, Message
from loralab.data.shares import share_documents, share_out

TEXT = Conversation((Message("text", "a"),), "rows.jsonl", 1)


@pytest.mark.parametrize(
    ("lengths", "num_threads", "expected"),
    [
        # From the longest on, each to whoever has the fewest tokens: 300 + 210 and 280 + 250.
        ([280, 300, 210, 250], 2, [[1, 2], [0, 3]]),
        # So 841 and 741 tokens; 170 for 140 leaves 811 and 771, and no other exchange is as good.
        ([140, 170, 179, 395, 259, 136, 163, 140], 2, [[0, 3, 5, 7], [1, 2, 4, 6]]),
        # 300, 280 and 460 tokens are too uneven, and three threads are not two groups of as many each.
        ([280, 300, 210, 250], 3, [[0, 1, 2, 3]]),
        ([400] * 4, 4, [[0], [1], [2], [3]]),
        ([400] * 4, 1, [[0, 1, 2, 3]]),
        # No more than four, of four threads each.
        ([300] * 16, 16, [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]]),
        # 600 tokens are worth two threads, so that four work in two groups.
        ([150] * 4, 4, [[0, 2], [1, 3]]),
        ([120] * 4, 4, [[0, 1, 2, 3]]),
        ([2000], 2, [[0]]),
        # One thread would wait for the other.
        ([1500, 400], 2, [[0, 1]]),
    ],
)
def test_shares_are_as_many_as_are_worth_it(
    lengths: list[int], num_threads: int, expected: list[list[int]]
) -> None:
    assert sorted(share_documents(lengths, num_threads)) == sorted(expected)


def test_documents_are_dealt_by_what_they_cost() -> None:
    # 600 + 300 and 500 + 400; by their tokens the first would go with the third.
    assert sorted(share_documents([300] * 4, 2, [500, 400, 300, 600])) == [[0, 1], [2, 3]]
    assert sorted(share_documents([300] * 4, 2)) == [[0, 2], [1, 3]]
    # As even as tokens may be, one thread would wait for the other.
    assert share_documents([300] * 2, 2, [500, 400]) == [[0, 1]]


def test_learned_tokens_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LEAST_TOKENS", 4)
    # Of 4 tokens each 3, 2, 1 and none are learned.
    rows = [Example([at, 1, 2, 3], [IGNORE_INDEX] * (at + 1) + [7] * (3 - at), TEXT) for at in range(4)]
    batch = pad_examples(rows, 0)
    dealt = [
        sorted(
            sorted(part.input_ids[0, part.position_ids[0] == 0].tolist()[:2])
            for part in share_out(batch, 2, cost)
            if part.position_ids is not None
        )
        for cost in (0, 1)
    ]
    # 7 + 6 + 5 + 4: the costliest with the cheapest.
    assert dealt == [[[0, 2], [1, 3]], [[0, 3], [1, 2]]]


def example(*ids: int) -> Example:
    return Example(list(ids), [IGNORE_INDEX, *ids[1:]], TEXT, [0.0, *[0.5] * (len(ids) - 1)], source=ids[0])


def test_a_share_is_a_row_of_whole_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LEAST_TOKENS", 4)
    rows = [example(1, 10, 11, 12), example(2, 20, 21), example(3, 30, 31), example(4, 40, 41, 42)]
    batch = pad_examples(rows, 0)

    parts = sorted(share_out(batch, 2), key=lambda part: int(part.input_ids[0, 0]))

    filler = [0] * 9
    assert [part.input_ids.tolist() for part in parts] == [
        [[1, 10, 11, 12, 2, 20, 21, *filler]],
        [[3, 30, 31, 4, 40, 41, 42, *filler]],
    ]
    assert [part.bounds for part in parts] == [(0, 4, 7, 16), (0, 3, 7, 16)]
    assert parts[0].labels.tolist() == [[-100, 10, 11, 12, -100, 20, 21] + [-100] * 9]
    assert parts[0].position_ids is not None
    assert parts[0].position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, *range(9)]]
    assert parts[1].weights is not None
    assert parts[1].weights.tolist() == [[0, 0.5, 0.5, 0, 0.5, 0.5, 0.5, *filler]]
    assert parts[1].sources is not None
    assert parts[1].sources.tolist() == [[3, 3, 3, 4, 4, 4, 4, *filler]]


def test_packed_rows_are_dealt_by_their_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LEAST_TOKENS", 4)
    rows = [[example(7, 8, 1, 2), example(7, 8, 5)], [example(7, 8, 3, 4, 6, 9, 9)]]
    batch = pack_examples(rows, 8, 99)
    parts = share_out(batch, 2)
    assert len(parts) == 2
    assert sorted(part.shared_prefix for part in parts) == [0, 2]
    # Padding is dealt to none; a share of one document shares nothing.
    assert sorted(part.attention_mask.sum().item() for part in parts) == [7, 7]
    real = torch.cat([part.input_ids[part.attention_mask == 1] for part in parts])
    assert sorted(real.tolist()) == sorted(batch.input_ids[batch.attention_mask == 1].tolist())
