"""The documents of a micro-batch, shared out among the threads of a CPU."""

from collections.abc import Sequence

from loralab.data.collate import MicroBatch, documents_of, take_documents
from loralab.data.masking import IGNORE_INDEX

LEAST_TOKENS = 256
"""Tokens that are worth a thread of their own: products of fewer read weights more than they compute."""
MOST_SHARES = 4
"""Each has a workspace of its own, and restores 4-bit weights for itself."""
MOST_UNEVEN = 1.1
"""Largest share as a multiple of the mean; beyond, threads that wait for it cost what the others gain."""


def share_documents(
    lengths: Sequence[int], num_threads: int, costs: Sequence[int] | None = None
) -> list[list[int]]:
    """Deals documents into shares of about the same cost, each to run on as many threads as the others.

    Args:
        lengths: Tokens of each document.
        num_threads: Threads in all.
        costs: What each takes, in whole numbers of any unit; None is its tokens.

    Returns:
        The places of the documents of each share, in order: as many shares as are worth it, and one where
        documents are few or uneven.
    """
    costs = lengths if costs is None else costs
    for num_shares in range(min(len(lengths), most_shares(sum(lengths), num_threads)), 1, -1):
        if num_threads % num_shares:
            continue
        shares = _deal(costs, num_shares)
        largest = max(sum(costs[place] for place in share) for share in shares)
        if largest * num_shares <= MOST_UNEVEN * sum(costs):
            return shares
    return [list(range(len(lengths)))]


def most_shares(tokens: int, num_threads: int) -> int:
    """Returns how many shares of so many tokens there are at most, each for as many threads."""
    most = min(num_threads, MOST_SHARES, tokens // LEAST_TOKENS)
    return next((count for count in range(most, 1, -1) if num_threads % count == 0), 1)


def share_out(batch: MicroBatch, num_threads: int, target_cost: float = 0.0) -> list[MicroBatch]:
    """Cuts a micro-batch into shares for the threads of a CPU, or returns it whole.

    Args:
        batch: Packed rows, or padded ones that go through the model without their padding.
        num_threads: Threads in all.
        target_cost: What a token that is learned takes more, as a multiple of what every token takes.
    """
    documents = documents_of(batch)
    is_target = batch.labels.flatten() != IGNORE_INDEX
    costs = [
        length + round(target_cost * int(is_target[start : start + length].sum()))
        for start, length in documents
    ]
    shares = share_documents([length for _, length in documents], num_threads, costs)
    if len(shares) == 1:
        return [batch]
    return [take_documents(batch, [documents[place] for place in share]) for share in shares]


def _deal(costs: Sequence[int], num_shares: int) -> list[list[int]]:
    """Gives each document, from the costliest on, to the cheapest share; then evens the shares out."""
    shares: list[list[int]] = [[] for _ in range(num_shares)]

    def cost(share: Sequence[int]) -> int:
        return sum(costs[place] for place in share)

    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        min(shares, key=cost).append(place)
    while True:
        shares.sort(key=cost)
        gap = cost(shares[-1]) - cost(shares[0])
        left, given, taken = _exchange(costs, shares[-1], shares[0], gap)
        if left >= gap:
            return [sorted(share) for share in shares]
        shares[-1] = [place for place in shares[-1] if place != given] + taken
        shares[0] = [place for place in shares[0] if place not in taken] + [given]


def _exchange(
    costs: Sequence[int], costly: Sequence[int], cheap: Sequence[int], gap: int
) -> tuple[int, int, list[int]]:
    """Finds the document to give, and the one to take for it or none, that leave the smallest gap."""
    return min(
        (abs(gap - 2 * (costs[given] - sum(costs[place] for place in taken))), given, taken)
        for given in costly
        for taken in ([], *([place] for place in cheap))
    )
