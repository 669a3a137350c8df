"""The memory of rows that go through the model side by side, each on a thread of its own."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from loralab.data.shares import most_shares
from loralab.model.memory_request import ACTIVATIONS, GRADIENTS, LOGITS, WORKSPACE, MemoryRequest
from loralab.optim.state_size import FLOAT32_BYTES


def largest_share(request: MemoryRequest) -> tuple[MemoryRequest, int]:
    """Returns the request of a share, and how many there are at most.

    They are taken to be even: other micro-batches of as many tokens may be, where this one is not.

    Args:
        request: Of a model that keeps documents apart.
    """
    documents = request.documents or request.lengths or ()
    total = sum(documents)
    num_shares = most_shares(total, request.threads)
    if num_shares == 1:
        return request, 1
    taken = tuple(_first_tokens(documents[::num_shares] * num_shares, -(-total // num_shares)))
    share = replace(request, num_supervised=max(1, -(-request.num_supervised // num_shares)), threads=1)
    if request.documents is None:
        return replace(share, rows=len(taken), lengths=taken), num_shares
    return replace(share, rows=1, width=sum(taken), documents=taken), num_shares


def _first_tokens(documents: Sequence[int], tokens: int) -> Iterator[int]:
    """Takes documents until there are so many tokens; cuts the last one."""
    for length in documents:
        if tokens == 0:
            return
        yield min(length, tokens)
        tokens -= min(length, tokens)


def side_by_side(parts: Counter[str], num_shares: int, dtype: torch.dtype) -> Counter[str]:
    """Returns what several shares take at the same stage, of which one takes `parts`.

    Each holds gradients of its own in the compute dtype, workspace until they are added up in float32.
    """
    if num_shares == 1:
        return parts
    own_gradients = parts[GRADIENTS] * dtype.itemsize // FLOAT32_BYTES
    return Counter(
        {
            ACTIVATIONS: num_shares * parts[ACTIVATIONS],
            LOGITS: num_shares * parts[LOGITS],
            WORKSPACE: num_shares * (parts[WORKSPACE] + own_gradients),
        }
    )
