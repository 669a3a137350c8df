"""What compares rows with each other: near duplicates and overlap with held-out rows."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from loralab.config.data import ContaminationConfig, DedupConfig
from loralab.data.contamination import Overlap, OverlapIndex
from loralab.data.corpus import Corpus
from loralab.data.dedup import conversation_text, near_duplicate_clusters, prompt_text
from loralab.data.records import Record
from loralab.data.tally import RemovedRow, excerpt
from loralab.data.workers import chunked, map_chunks

CHUNK = 512
Numbers = NDArray[np.int64]


def stream_records(corpus: Corpus, numbers: Numbers) -> Iterator[Record]:
    """Yields the records of the given numbers, a chunk in memory at a time."""
    for start in range(0, len(numbers), CHUNK):
        yield from corpus.records(numbers[start : start + CHUNK])


def find_near_duplicates(corpus: Corpus, numbers: Numbers, config: DedupConfig) -> dict[int, int]:
    """Returns for each near duplicate the earlier row that it resembles, by their numbers."""
    text_of = prompt_text if config.near == "prompt" else conversation_text
    texts = (text_of(record) for record in stream_records(corpus, numbers))
    clusters = near_duplicate_clusters(texts, config.threshold, config.num_perm)
    return {
        int(numbers[place]): int(numbers[first]) for place, first in enumerate(clusters) if first != place
    }


class OverlapFinder:
    """Finds training rows that overlap with held-out or benchmark rows."""

    def __init__(self, corpus: Corpus, config: ContaminationConfig, num_perm: int) -> None:
        """Starts with nothing to overlap with."""
        self.corpus = corpus
        self.index = OverlapIndex(config.ngram, config.near, num_perm)

    def add(self, records: Iterator[Record], what: str) -> None:
        """Adds rows that must not be trained on, named such as `test`."""
        for record in records:
            self.index.add(record, f"{what} row {record.row}")

    def __call__(self, numbers: Sequence[int]) -> list[tuple[int, Overlap]]:
        """Returns the rows of a chunk that overlap."""
        chosen = np.array(numbers, np.int64)
        pairs = zip(numbers, self.corpus.records(chosen), strict=True)
        return [(number, found) for number, record in pairs if (found := self.index.find(record))]


def find_overlaps(finder: OverlapFinder, numbers: Numbers, num_workers: int | None) -> dict[int, Overlap]:
    """Returns the overlap of each training row that has one, by the row's number."""
    # Once here, not in every worker.
    finder.index.freeze()
    chunks = chunked((int(number) for number in numbers), CHUNK)
    return {number: overlap for found in map_chunks(finder, chunks, num_workers) for number, overlap in found}


def removed_row(corpus: Corpus, number: int, reason: str) -> RemovedRow:
    """Describes a row of the corpus that is left out or reported."""
    record = corpus.records(np.array([number]))[0]
    shown = excerpt(" / ".join(message.content[:200] for message in record.messages))
    return RemovedRow(record.source, f"row {record.row}", reason, shown)
