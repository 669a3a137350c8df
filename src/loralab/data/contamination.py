"""Training rows that overlap with rows they are measured on: held-out rows and benchmarks."""

import itertools
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loralab.data.dedup import (
    MinHasher,
    hash_bytes,
    ngram_hashes,
    shingles,
    split_prompt,
    word_hashes,
    words,
)
from loralab.data.records import Message, Record

COMPARED_ROLES = ("user", "assistant", "text")
MANY_ROWS = 20
COMMON_SHARE = 0.05
COUNTED_ROWS = 20_000
BLOCK = 2**20
CLIP = 120

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a training row shares with a row that it must not know."""

    against: str
    """Label of the held-out or benchmark row."""
    kind: str
    """ngram, near or exact."""
    text: str
    """The words in common, clipped; for `near` the training row's first words."""


class OverlapIndex:
    """Finds rows that share words with the rows of a test set (arXiv:2005.14165, appendix C).

    Turns of the roles user, assistant and text count, each by itself, lower-cased and without punctuation.
    Rows overlap if they share any run of `ngram` words, or if they are the same as a whole, which is all that
    counts for short ones; a prompt without an answer also overlaps with a row that answers it.

    Words that many rows of one source share are a prompt's fixed text, no sign of overlap. An n-gram is such
    if it stands in more than 5% of the rows of a source, and in more than 2; in a source of fewer than 20
    rows in more than half, and in more than 1; at most 20,000 rows of a source are counted. An n-gram with
    more than half of its words inside of such n-grams does not count either, so that the end of an
    instruction with a word or two after it is no overlap.

    An added word takes 8 bytes until the first `find`, about 40 while that sorts them and at most 12 from
    then on; `near` takes 270 bytes a row. N-grams are compared by 64-bit hashes: 2 million rows of 100 words
    against a million n-grams meet by chance with a probability of about 2e8 * 1e6 * 2^-60 = 2e-4, so the
    words themselves are not kept.
    """

    def __init__(self, ngram: int, near: float | None, num_perm: int = 128) -> None:
        """Starts without rows.

        Args:
            ngram: Words in a row that must agree.
            near: Estimated Jaccard similarity of the rows' word 5-grams that counts as well; None: off.
            num_perm: MinHash permutations for `near`.
        """
        self._ngram = ngram
        self._labels: list[str] = []
        self._sources: dict[str, int] = {}
        self._source_of_row = array("i")
        self._turns = _Turns(ngram)
        self._equal: dict[int, int] = {}
        self._near = None if near is None else _NearIndex(near, num_perm)
        self._grams: _SortedHashes | None = None

    def add(self, record: Record, label: str) -> None:
        """Adds a row that must not be trained on; all are added before the first `find`.

        Args:
            record: The row; its `source` says which rows may share a prompt's fixed text.
            label: Names the row in what `find` returns, such as `test row 12`.
        """
        assert self._grams is None, "rows are added before the first find"
        row = len(self._labels)
        self._labels.append(label)
        self._source_of_row.append(self._sources.setdefault(record.source, len(self._sources)))
        prompt, answer = split_prompt(record)
        turns = [word_hashes(turn) for turn in _turn_words(prompt + answer)]
        for hashes in turns:
            self._turns.add(row, hashes)
        if any(map(len, turns)):
            self._equal.setdefault(_sequence_hash(turns), row)
        if self._near is not None:
            self._near.add(turns)

    def freeze(self) -> None:
        """Sorts what was added. The first `find` does so too; ask for it before each worker gets a copy."""
        if self._grams is None:
            self._grams = self._turns.index(np.array(self._source_of_row, np.int32))
            self._turns = _Turns(self._ngram)
            if self._near is not None:
                self._near.freeze()

    def find(self, record: Record) -> Overlap | None:
        """Returns what a training row shares with the added rows; None where nothing."""
        self.freeze()
        prompt, answer = split_prompt(record)
        spoken = [_turn_words(prompt), _turn_words(answer)]
        hashes = [[word_hashes(turn) for turn in turns] for turns in spoken]
        both_spoken, both_hashes = spoken[0] + spoken[1], hashes[0] + hashes[1]
        for turn, turn_hashes in zip(both_spoken, both_hashes, strict=True):
            if overlap := self._shared_ngram(turn, turn_hashes):
                return overlap
        for equal, turns in ((both_hashes, both_spoken), (hashes[0], spoken[0])):
            row = self._equal.get(_sequence_hash(equal)) if self._equal and any(map(len, equal)) else None
            if row is not None:
                return Overlap(self._labels[row], "exact", _clip(turns))
        row = self._near.find(both_hashes) if self._near is not None else None
        return None if row is None else Overlap(self._labels[row], "near", _clip(both_spoken))

    def _shared_ngram(self, turn: Sequence[str], hashes: Hashes) -> Overlap | None:
        if self._grams is None or len(hashes) < self._ngram:
            return None
        rows = self._grams.rows(ngram_hashes(hashes, self._ngram))
        matches = np.flatnonzero(rows >= 0)
        if not len(matches):
            return None
        first = matches[0]
        others = np.flatnonzero(rows[first:] != rows[first])
        end = first + (others[0] if len(others) else len(rows) - first)
        return Overlap(self._labels[rows[first]], "ngram", _clip([turn[first : end + self._ngram - 1]]))


class _Turns:
    """The n-grams of turns, one place for every word, so that those beside a common one can be told."""

    def __init__(self, ngram: int) -> None:
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

    def index(self, source_of_row: NDArray[np.int32]) -> "_SortedHashes":
        """Returns the n-grams that are no fixed text of their source."""
        if not self._rows:
            return _SortedHashes(np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, bool))
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
        return _SortedHashes(grams, rows, counts)

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


class _SortedHashes:
    """A table from 64-bit hashes to the first row that has them: 12 bytes for each."""

    def __init__(self, hashes: Hashes, rows: NDArray[np.int32], chosen: NDArray[np.bool_]) -> None:
        # One sixteenth at a time: sorting takes several times the memory of what is sorted.
        parts = []
        for top in range(16):
            low, high = np.uint64(top << 60), np.uint64((top + 1 << 60) - 1)
            part = np.flatnonzero(chosen & (hashes >= low) & (hashes <= high))
            distinct, first = np.unique(hashes[part], return_index=True)
            parts.append((distinct, rows[part[first]]))
        self._hashes = np.concatenate([distinct for distinct, _ in parts])
        self._rows = np.concatenate([owners for _, owners in parts])

    def rows(self, hashes: Hashes) -> Numbers:
        """Returns the row of every hash, -1 where there is none."""
        places = _places(self._hashes, hashes)
        return np.where(places >= 0, self._rows[places], -1) if len(self._rows) else places


def _places(table: Hashes, hashes: Hashes) -> Numbers:
    """Returns where in a sorted table each hash stands, -1 where it does not."""
    if not len(table):
        return np.full(len(hashes), -1)
    places = np.searchsorted(table, hashes)
    places[places == len(table)] = 0
    return np.where(table[places] == hashes, places, -1)


class _NearIndex:
    """MinHash sketches of rows and their band keys."""

    def __init__(self, near: float, num_perm: int) -> None:
        self._hasher, self._num_perm = MinHasher(near, num_perm), num_perm
        self._added_keys, self._added_sketches, self._added_rows = array("I"), bytearray(), array("I")
        self._num_rows = 0

    def add(self, turns: Sequence[Hashes]) -> None:
        """Adds the sketch of the next row."""
        row, self._num_rows = self._num_rows, self._num_rows + 1
        sketched = self._sketch(turns)
        if sketched is None:
            return
        self._added_keys.frombytes(sketched[0].tobytes())
        self._added_sketches += sketched[1].tobytes()
        self._added_rows.append(row)

    def freeze(self) -> None:
        """Sorts the sketches by their bands."""
        keys = np.frombuffer(self._added_keys, np.uint32) if self._added_keys else np.empty(0, np.uint32)
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._places = (order // self._hasher.num_bands).astype(np.int32)
        self._sketches = np.array(self._added_sketches, np.uint8).reshape(-1, self._num_perm)
        self._rows = np.array(self._added_rows, np.int64)
        del self._added_keys, self._added_sketches, self._added_rows

    def find(self, turns: Sequence[Hashes]) -> int | None:
        """Returns the first row that is similar enough; None where none is."""
        sketched = self._sketch(turns)
        if sketched is None or not len(self._keys):
            return None
        band_keys, sketch = sketched
        starts = np.searchsorted(self._keys, band_keys)
        ends = np.searchsorted(self._keys, band_keys, side="right")
        spans = [self._places[start:end] for start, end in zip(starts, ends, strict=True) if start < end]
        if not spans:
            return None
        candidates = np.unique(np.concatenate(spans))
        equal = np.count_nonzero(self._sketches[candidates] == sketch, axis=1)
        best = int(np.argmax(equal))
        return int(self._rows[candidates[best]]) if equal[best] >= self._hasher.min_equal else None

    def _sketch(self, turns: Sequence[Hashes]) -> tuple[NDArray[np.uint32], NDArray[np.uint8]] | None:
        hashes = np.concatenate([*turns, np.empty(0, np.uint64)])
        return self._hasher.sketch(shingles(hashes)) if len(hashes) else None


def _turn_words(messages: Sequence[Message]) -> list[list[str]]:
    return [
        words(f"{message.reasoning}\n{message.content}" if message.reasoning else message.content)
        for message in messages
        if message.role in COMPARED_ROLES
    ]


def _sequence_hash(turns: Sequence[Hashes]) -> int:
    return hash_bytes(b"".join(hashes.tobytes() for hashes in turns))


def _clip(turns: Sequence[Sequence[str]]) -> str:
    text = " ".join(word for turn in turns for word in turn)
    return text if len(text) <= CLIP else text[: CLIP - 1] + "…"
