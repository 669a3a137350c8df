"""The documents of a micro-batch, shared out among the threads of a CPU."""

import heapq
from collections.abc import Sequence

from loralab.data.collate import MicroBatch, documents_of, take_documents

LEAST_TOKENS = 256
"""Tokens that are worth a thread of their own: products of fewer read weights more than they compute."""
MOST_SHARES = 4
"""Each has a workspace of its own, and restores 4-bit weights for itself."""
MOST_UNEVEN = 1.1
"""Largest share as a multiple of the mean; beyond, threads that wait for it cost what the others gain."""


def share_documents(lengths: Sequence[int], num_threads: int) -> list[list[int]]:
    """Deals documents into shares of about the same tokens, each to run on as many threads as the others.

    Args:
        lengths: Tokens of each document.
        num_threads: Threads in all.

    Returns:
        The places of the documents of each share, in order: as many shares as are worth it, and one where
        documents are few or uneven.
    """
    for num_shares in range(min(len(lengths), most_shares(sum(lengths), num_threads)), 1, -1):
        if num_threads % num_shares:
            continue
        shares = _deal(lengths, num_shares)
        largest = max(sum(lengths[place] for place in share) for share in shares)
        if largest * num_shares <= MOST_UNEVEN * sum(lengths):
            return shares
    return [list(range(len(lengths)))]


def most_shares(tokens: int, num_threads: int) -> int:
    """Returns how many shares of so many tokens there are at most, each for as many threads."""
    most = min(num_threads, MOST_SHARES, tokens // LEAST_TOKENS)
    return next((count for count in range(most, 1, -1) if num_threads % count == 0), 1)


def share_out(batch: MicroBatch, num_threads: int) -> list[MicroBatch]:
    """Cuts a micro-batch into shares for the threads of a CPU, or returns it whole.

    Args:
        batch: Packed rows, or padded ones that go through the model without their padding.
        num_threads: Threads in all.
    """
    documents = documents_of(batch)
    shares = share_documents([length for _, length in documents], num_threads)
    if len(shares) == 1:
        return [batch]
    return [take_documents(batch, [documents[place] for place in share]) for share in shares]


def _deal(lengths: Sequence[int], num_shares: int) -> list[list[int]]:
    """Gives each document, from the longest on, to the share with the fewest tokens."""
    shares: list[tuple[int, list[int]]] = [(0, [])] * num_shares
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        tokens, places = heapq.heappop(shares)
        heapq.heappush(shares, (tokens + lengths[place], [*places, place]))
    return [sorted(places) for _, places in shares]
