"""Which documents share a row: bins of a fixed capacity, or groups of like length within a token budget."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Packs:
    """Documents in groups: group `i` is `members[offsets[i] : offsets[i + 1]]`."""

    offsets: Integers
    """[num_packs + 1], from 0."""
    members: Integers
    """[num_documents], every document's place in the data once."""

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Integers:
        """The documents of a group, the longest first.

        Raises:
            IndexError: There is no such group.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = index % len(self)
        return self.members[self.offsets[start] : self.offsets[start + 1]]

    def fill(self, lengths: Integers | Sequence[int], capacity: int) -> float:
        """Returns the share of `len(self)` rows of `capacity` tokens that documents fill; 1 without rows."""
        if len(self) == 0:
            return 1.0
        return int(np.asarray(lengths, dtype=np.int64)[self.members].sum()) / (len(self) * capacity)


def pack_best_fit(lengths: Integers | Sequence[int], capacity: int, order: Integers | None = None) -> Packs:
    """Packs documents into as few rows of `capacity` tokens as best-fit-decreasing finds.

    From the longest document to the shortest, each goes into the row with the least room that still holds
    it, of several such rows into the one that has had that room for longest, or else into a new row
    (Johnson et al. 1974, SIAM J. Comput. 3(4); for language models arXiv:2404.10830, section 3). Documents
    of one length are placed together: the tightest row takes one after another until it holds no more, so
    the work grows with the number of distinct lengths and rooms rather than with the documents.

    Args:
        lengths: Tokens of each document, each from 1 to `capacity`.
        capacity: Tokens of a row.
        order: A permutation of the documents that says which of several of one length comes first; None
            keeps them as they are. The lengths in each row do not depend on it.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    assert len(lengths) == 0 or (lengths.min() >= 1 and lengths.max() <= capacity), (
        "lengths must be 1..capacity"
    )
    documents = _longest_first(lengths, order)
    counts = np.bincount(lengths, minlength=capacity + 1)
    rows = _assign_rows(counts, capacity)
    num_rows = int(rows.max()) + 1 if len(rows) else 0
    return Packs(_offsets(np.bincount(rows, minlength=num_rows)), documents[np.argsort(rows, kind="stable")])


def group_by_tokens(
    lengths: Integers | Sequence[int],
    max_tokens: int,
    pad_multiple: int,
    order: Integers | None = None,
) -> Packs:
    """Groups documents of like length into batches whose padded size stays within a token budget.

    A batch costs its rows times its longest document rounded up to a multiple of `pad_multiple`. A
    document above the budget gets a batch of its own.

    Args:
        lengths: Tokens of each document, each at least 1.
        max_tokens: Most tokens of a batch, padding included.
        pad_multiple: Widths are multiples of this.
        order: As for `pack_best_fit`; the number and the shapes of the batches do not depend on it.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    documents = _longest_first(lengths, order)
    widths = -(-lengths[documents] // pad_multiple) * pad_multiple
    sizes: list[int] = []
    start = 0
    while start < len(documents):
        rows = max(1, max_tokens // int(widths[start]))
        rows = min(rows, len(documents) - start)
        sizes.append(rows)
        start += rows
    return Packs(_offsets(np.array(sizes, dtype=np.int64)), documents)


def document_bounds(rows: Sequence[Sequence[int]], width: int) -> tuple[int, ...]:
    """Returns where documents begin in packed rows laid end to end, with the end of the last row.

    What is left of a row is padding, a document of its own. `[[3, 2], [4]]` in rows of 6 tokens gives
    `(0, 3, 5, 6, 10, 12)`.

    Args:
        rows: The lengths of each row's documents.
        width: Tokens of a row.
    """
    bounds = [0]
    for number, row in enumerate(rows, start=1):
        bounds += [bounds[-1] + end for end in itertools.accumulate(row)]
        assert bounds[-1] <= number * width, "documents must fit their row"
        if bounds[-1] < number * width:
            bounds.append(number * width)
    return tuple(bounds)


def document_positions(bounds: Sequence[int]) -> Integers:
    """Returns the position of every token in its own document; `(0, 3, 5)` gives 0, 1, 2, 0, 1."""
    starts = np.array(bounds, dtype=np.int64)
    return np.arange(bounds[-1], dtype=np.int64) - np.repeat(starts[:-1], np.diff(starts))


def _longest_first(lengths: Integers, order: Integers | None) -> Integers:
    order = np.arange(len(lengths), dtype=np.int64) if order is None else order
    return order[np.argsort(-lengths[order], kind="stable")]


def _offsets(sizes: Integers) -> Integers:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)])


class _Rooms:
    """Rows by the room left in them, those of one room in the order in which they came to it."""

    def __init__(self) -> None:
        self.rows: dict[int, list[Integers]] = {}
        self.occupied = 0
        """Bit `room` is set while rows with that room are here."""

    def put(self, room: int, rows: Integers) -> None:
        """Files rows under the room that is left in them; full rows are done with."""
        if room and len(rows):
            self.rows.setdefault(room, []).append(rows)
            self.occupied |= 1 << room

    def take_tightest(self, length: int) -> tuple[int, Integers] | None:
        """Takes out all rows of the least room that holds `length` tokens."""
        fitting = self.occupied >> length
        if not fitting:
            return None
        room = length + (fitting & -fitting).bit_length() - 1
        self.occupied ^= 1 << room
        return room, np.concatenate(self.rows.pop(room))


def _assign_rows(counts: Integers, capacity: int) -> Integers:
    """Returns the row of each document, the documents going from the longest to the shortest.

    Args:
        counts: [capacity + 1], how many documents have each length.
        capacity: Tokens of a row.
    """
    assigned = np.empty(counts.sum(), dtype=np.int64)
    rooms = _Rooms()
    placed = num_rows = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        end = placed + int(counts[length])
        while placed < end:
            tightest = rooms.take_tightest(length)
            if tightest is None:
                num_new = -(-(end - placed) // (capacity // length))
                tightest = capacity, np.arange(num_rows, num_rows + num_new, dtype=np.int64)
                num_rows += num_new
            room, rows = tightest
            each = room // length
            num_full = min(len(rows), (end - placed) // each)
            assigned[placed : placed + num_full * each] = np.repeat(rows[:num_full], each)
            rooms.put(room - each * length, rows[:num_full])
            placed += num_full * each
            if num_full < len(rows):  # the documents of this length end within the next row
                assigned[placed:end] = rows[num_full]
                rooms.put(room - (end - placed) * length, rows[num_full : num_full + 1])
                rooms.put(room, rows[num_full + 1 :])
                placed = end
    return assigned
