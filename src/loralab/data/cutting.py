"""How the rows of a step are cut into micro-batches: by count or by tokens."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MicroBatchSize:
    """How much goes through the model at once; exactly one of the first two is given."""

    rows: int | None = None
    """Rows."""
    tokens: int | None = None
    """Most tokens, padding included; a single row may have more."""
    fill_tokens: int = 0
    """More rows are taken as long as all have no more tokens than this, padding included; 0 takes none."""

    def num_rows(self, width: int) -> int:
        """Rows of a given width in tokens that go through at once."""
        if self.rows is not None:
            return max(self.rows, self.fill_tokens // width)
        assert self.tokens is not None
        return max(1, max(self.tokens, self.fill_tokens) // width)


def deal(widths: Sequence[int], num_shares: int) -> list[list[int]]:
    """Deals rows to processes: as many to each as there are, one more or less, of about the same tokens.

    The widest first, there and back again, so that who got the wider of two rows gets the narrower next time.

    Args:
        widths: Tokens of each row.
        num_shares: Processes.

    Returns:
        The places of the rows of each process.
    """
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    for number, place in enumerate(sorted(range(len(widths)), key=lambda place: -widths[place])):
        turn, at = divmod(number, num_shares)
        shares[at if turn % 2 == 0 else num_shares - 1 - at].append(place)
    return shares


def cut(widths: Sequence[int], size: MicroBatchSize) -> list[range]:
    """Cuts rows into micro-batches, each as wide as its first row.

    Args:
        widths: Padded tokens of each row, from the widest to the narrowest.
        size: How much goes through at once.

    Returns:
        The places of the rows of each micro-batch, in order.
    """
    chunks, at = [], 0
    while at < len(widths):
        end = min(len(widths), at + size.num_rows(widths[at]))
        chunks.append(range(at, end))
        at = end
    return chunks
