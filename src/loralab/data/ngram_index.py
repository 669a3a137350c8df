"""The n-grams of rows as sorted hashes, without those that are fixed text of their source."""

import itertools
import math
from array import array

import numpy as np
from numpy.typing import NDArray

from loralab.data.dedup import ngram_hashes

MANY_ROWS = 20
COMMON_SHARE = 0.05
COUNTED_ROWS = 20_000
BLOCK = 2**20
FIRST_BITS = 22
_REST_BITS = np.uint64(64 - FIRST_BITS)

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]


class TurnNgrams:
    """The n-grams of turns, one place for every word, so that those beside a common one can be told."""

    def __init__(self, ngram: int) -> None:
        """Starts without turns; `ngram` is in words."""
        self._ngram = ngram
        self._grams = array("Q")
        self._ends = array("q")
        self._rows = array("i")

    def add(self, row: int, hashes: Hashes) -> None:
        """Adds the n-grams of one turn of a row."""
        if len(hashes) >= self._ngram:
            self._grams.frombytes(ngram_hashes(hashes, self._ngram).tobytes() + bytes(8 * (self._ngram - 1)))
            self._ends.append(len(self._grams))
            self._rows.append(row)

    def index(self, source_of_row: NDArray[np.int32]) -> "SortedHashes":
        """Returns the n-grams that are no fixed text of their source."""
        if not self._rows:
            return SortedHashes(np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, bool))
        grams, ends = np.frombuffer(self._grams, np.uint64), np.frombuffer(self._ends, np.int64)
        rows = np.repeat(np.frombuffer(self._rows, np.int32), np.diff(ends, prepend=0))
        counts = np.ones(len(grams), bool)
        for place in range(1, self._ngram):
            counts[ends - place] = False
        common = _common_grams(grams, rows, counts, source_of_row)
        # Turn by turn to the end of a block: an n-gram and the common ones beside it are in the same turn.
        bounds = np.unique(
            np.append(ends[np.searchsorted(ends, np.arange(BLOCK, ends[-1], BLOCK))], ends[-1])
        )
        for start, end in itertools.pairwise([0, *bounds.tolist()]):
            counts[start:end] &= self._apart(grams[start:end], counts[start:end], common)
        return SortedHashes(grams, rows, counts)

    def _apart(self, grams: Hashes, counts: NDArray[np.bool_], common: Hashes) -> NDArray[np.bool_]:
        """Returns which n-grams have at most half of their words inside of common ones."""
        window = np.ones(self._ngram, np.int32)
        inside = np.convolve(counts & (_places(common, grams) >= 0), window)[: len(grams)] > 0
        num_inside = np.convolve(inside, window)[self._ngram - 1 :]
        return np.asarray(2 * num_inside <= self._ngram)


def _common_grams(
    grams: Hashes, rows: NDArray[np.int32], counts: NDArray[np.bool_], source_of_row: NDArray[np.int32]
) -> Hashes:
    found = []
    for source in range(source_of_row.max() + 1):
        rows_of_source = np.flatnonzero(source_of_row == source)
        sample = rows_of_source[:: math.ceil(len(rows_of_source) / COUNTED_ROWS)]
        sampled = np.zeros(len(source_of_row), bool)
        sampled[sample] = True
        chosen = np.flatnonzero(counts & sampled[rows])
        chosen = chosen[np.lexsort((rows[chosen], grams[chosen]))]
        of_source, owners = grams[chosen], rows[chosen]
        first_in_row = np.ones(len(chosen), bool)
        first_in_row[1:] = (of_source[1:] != of_source[:-1]) | (owners[1:] != owners[:-1])
        distinct, num_rows = np.unique(of_source[first_in_row], return_counts=True)
        many = len(sample) >= MANY_ROWS
        limit = max(2, COMMON_SHARE * len(sample)) if many else max(1, len(sample) / 2)
        found.append(distinct[num_rows > limit])
    return np.unique(np.concatenate(found))


class SortedHashes:
    """A table from 64-bit hashes to the first row that has them: 12 bytes for each, and 4 MiB."""

    def __init__(self, hashes: Hashes, rows: NDArray[np.int32], chosen: NDArray[np.bool_]) -> None:
        """Sorts the chosen hashes, each with the row that it belongs to."""
        # One sixteenth at a time: sorting takes several times the memory of what is sorted.
        parts = []
        for top in range(16):
            low, high = np.uint64(top << 60), np.uint64((top + 1 << 60) - 1)
            part = np.flatnonzero(chosen & (hashes >= low) & (hashes <= high))
            distinct, first = np.unique(hashes[part], return_index=True)
            parts.append((distinct, rows[part[first]]))
        self._hashes = np.concatenate([distinct for distinct, _ in parts])
        self._rows = np.concatenate([owners for _, owners in parts])
        self._begins = np.zeros(2**FIRST_BITS, bool)
        self._begins[self._hashes >> _REST_BITS] = True

    def rows(self, hashes: Hashes) -> Numbers:
        """Returns the row of every hash, -1 where there is none."""
        found = np.full(len(hashes), -1)
        # Most hashes are in no table, which their first bits tell twenty times faster than a search.
        possible = np.flatnonzero(self._begins[hashes >> _REST_BITS])
        places = _places(self._hashes, hashes[possible])
        is_known = places >= 0
        found[possible[is_known]] = self._rows[places[is_known]]
        return found


def _places(table: Hashes, hashes: Hashes) -> Numbers:
    """Returns where in a sorted table each hash stands, -1 where it does not."""
    if not len(table):
        return np.full(len(hashes), -1)
    places = np.searchsorted(table, hashes)
    places[places == len(table)] = 0
    return np.where(table[places] == hashes, places, -1)
