"""What several shares take at once, from what one takes."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from loralab.config.model import LoraConfig, QuantConfig
from loralab.model.memory_request import MemoryRequest
from loralab.model.memory_shares import largest_share, side_by_side

REQUEST = MemoryRequest(
    QuantConfig("none"), LoraConfig(r=4), torch.bfloat16, rows=4, width=320, num_supervised=101,
    checkpointing=False, lengths=(300, 294, 226, 250), threads=2,
)  # fmt: skip


def test_a_share_has_its_part_of_the_tokens_and_of_what_is_learned() -> None:
    """Half of 1,070 tokens: every second row, and the beginning of the next."""
    share, count = largest_share(REQUEST)
    assert count == 2
    assert (share.rows, share.lengths, share.width) == (3, (300, 226, 9), 320)
    assert share.num_supervised == 51


def test_documents_of_packed_rows_come_in_a_row_of_their_own() -> None:
    request = replace(REQUEST, rows=2, width=535, documents=REQUEST.lengths, lengths=None)
    share, _ = largest_share(request)
    assert (share.rows, share.width, share.documents) == (1, 535, (300, 226, 9))


def test_one_long_document_stands_for_as_many_tokens_of_short_ones() -> None:
    share, count = largest_share(replace(REQUEST, lengths=(1000,)))
    assert (share.lengths, count) == ((500,), 2)


@pytest.mark.parametrize("changes", [{"threads": 1}, {"lengths": None}, {"lengths": (400, 100)}], ids=str)
def test_what_is_not_shared_is_taken_whole(changes: dict[str, object]) -> None:
    request = replace(REQUEST, **changes)  # type: ignore[arg-type]
    assert largest_share(request) == (request, 1)


def test_what_moves_is_there_for_each() -> None:
    parts = Counter(activations=10, logits=3, workspace=2, gradients=8)
    assert side_by_side(parts, 1, torch.bfloat16) == parts
    # Gradients that would be 8 bytes of float32 are held in the compute dtype until all are there.
    assert side_by_side(parts, 2, torch.bfloat16) == {
        "activations": 20,
        "logits": 6,
        "workspace": 2 * (2 + 4),
    }
    assert side_by_side(parts, 4, torch.float32) == {
        "activations": 40,
        "logits": 12,
        "workspace": 4 * (2 + 8),
    }
