"""Training rows that overlap with rows they are measured on: held-out rows and benchmarks."""

import itertools
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
from loralab.data.ngram_index import Hashes, Numbers, SortedHashes, TurnNgrams
from loralab.data.records import Message, Record

COMPARED_ROLES = ("user", "assistant", "text")
CLIP = 120


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
        self._turns = TurnNgrams(ngram)
        self._equal: dict[int, int] = {}
        self._near = None if near is None else _NearIndex(near, num_perm)
        self._grams: SortedHashes | None = None

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
            self._turns = TurnNgrams(self._ngram)
            if self._near is not None:
                self._near.freeze()

    def find(self, record: Record) -> Overlap | None:
        """Returns what a training row shares with the added rows; None where nothing."""
        return self.find_all([record])[0]

    def find_all(self, records: Sequence[Record]) -> list[Overlap | None]:
        """Returns what each of many training rows shares, in half the time that one after another takes."""
        self.freeze()
        spoken = [tuple(map(_turn_words, split_prompt(record))) for record in records]
        turns = [turn for prompt, answer in spoken for turn in (*prompt, *answer)]
        hashes = word_hashes(list(itertools.chain.from_iterable(turns)))
        edges = np.cumsum([0, *map(len, turns)])
        shared = self._shared_ngrams(turns, hashes, edges)
        found, first = list[Overlap | None](), 0
        for prompt, answer in spoken:
            middle, end = first + len(prompt), first + len(prompt) + len(answer)
            overlap = next((shared[turn] for turn in range(first, end) if turn in shared), None)
            if overlap is None:
                words_of = (hashes[edges[first] : edges[end]], hashes[edges[first] : edges[middle]])
                overlap = self._equal_or_near(words_of, prompt, answer)
            found.append(overlap)
            first = end
        return found

    def _shared_ngrams(
        self, turns: Sequence[Sequence[str]], hashes: Hashes, edges: Numbers
    ) -> dict[int, Overlap]:
        """Returns the first shared run of words of each turn that has one; turns begin and end at `edges`."""
        if self._grams is None or len(hashes) < self._ngram:
            return {}
        rows = self._grams.rows(ngram_hashes(hashes, self._ngram))
        matches = np.flatnonzero(rows >= 0)
        owners = np.searchsorted(edges, matches, side="right") - 1
        is_inside = matches + self._ngram <= edges[owners + 1]
        matched, firsts = np.unique(owners[is_inside], return_index=True)
        found = {}
        for turn, first in zip(matched.tolist(), matches[is_inside][firsts].tolist(), strict=True):
            start, last = int(edges[turn]), int(edges[turn + 1]) - self._ngram + 1
            others = np.flatnonzero(rows[first:last] != rows[first])
            end = first + int(others[0]) if len(others) else last
            text = _clip([turns[turn][first - start : end - start + self._ngram - 1]])
            found[turn] = Overlap(self._labels[rows[first]], "ngram", text)
        return found

    def _equal_or_near(
        self, hashes: tuple[Hashes, Hashes], prompt: Sequence[Sequence[str]], answer: Sequence[Sequence[str]]
    ) -> Overlap | None:
        """Compares a row as a whole, given the hashes of all its words and of its prompt's."""
        both = [*prompt, *answer]
        for known, turns in zip(hashes, (both, prompt), strict=True):
            row = self._equal.get(hash_bytes(known.tobytes())) if len(known) else None
            if row is not None:
                return Overlap(self._labels[row], "exact", _clip(turns))
        row = self._near.find([hashes[0]]) if self._near is not None else None
        return None if row is None else Overlap(self._labels[row], "near", _clip(both))


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
