"""What compares rows with each other: near duplicates, and the rows that must not be trained on."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loralab.config.data import DataConfig, DedupConfig
from loralab.data.contamination import OverlapIndex
from loralab.data.corpus import Corpus
from loralab.data.dedup import conversation_text, near_duplicate_clusters, prompt_text
from loralab.data.privacy import FINDERS
from loralab.data.records import Record
from loralab.data.tally import RemovedRow, describe_removed

Numbers = NDArray[np.int64]


def find_near_duplicates(corpus: Corpus, numbers: Numbers, config: DedupConfig) -> dict[int, int]:
    """Returns for each near duplicate the first row of its cluster, by their numbers."""
    text_of = prompt_text if config.near == "prompt" else conversation_text
    texts = (text_of(record) for record in corpus.stream(numbers))
    clusters = near_duplicate_clusters(texts, config.threshold, config.num_perm)
    return {
        int(numbers[place]): int(numbers[first]) for place, first in enumerate(clusters) if first != place
    }


def build_overlap_index(
    corpus: Corpus,
    held_out: Mapping[str, Numbers],
    benchmarks: Mapping[str, Iterable[Record]],
    config: DataConfig,
) -> OverlapIndex | None:
    """Indexes the rows that must not be trained on; None where nobody asks for overlap.

    Args:
        corpus: All rows.
        held_out: The numbers of the rows of validation and test.
        benchmarks: The rows of each benchmark file.
        config: What counts as overlap.
    """
    options = config.contamination
    if options.action == "none":
        return None
    index = OverlapIndex(options.ngram, options.near, config.dedup.num_perm)
    for part, numbers in held_out.items():
        for record in corpus.stream(numbers):
            index.add(record, f"{part} {record.source} {record.place}")
    for path, records in benchmarks.items():
        for record in records:
            index.add(record, f"{path} {record.place}")
    # Once here, not in every worker.
    index.freeze()
    return index


def removed_row(
    corpus: Corpus, number: int, reason: str, kinds: Sequence[str] = tuple(FINDERS)
) -> RemovedRow:
    """Describes a row of the corpus that is left out or reported.

    Args:
        corpus: All rows.
        number: The row.
        reason: Why it is left out.
        kinds: The kinds of personal data to mask in what is quoted of it.
    """
    return describe_removed(corpus.records(np.array([number]))[0], reason, kinds)
