"""Which of the training rows are held out, by the method that `data.split` names."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from loralab.config.data import DataConfig
from loralab.data.corpus import Corpus
from loralab.data.dedup import conversation_text, near_duplicate_clusters
from loralab.data.splits import (
    Split,
    grouped_split,
    hash_split,
    length_bins,
    random_split,
    stratified_split,
    temporal_split,
)

Numbers = NDArray[np.int64]


def hold_out(
    corpus: Corpus, parts: dict[str, Numbers], config: DataConfig, names: Sequence[str], seed: int
) -> dict[str, Numbers]:
    """Deals training rows to the parts that have no files of their own.

    Args:
        corpus: All rows.
        parts: The numbers of the rows of train, val and test; an empty part is to be held out.
        config: Method and shares.
        names: The name of each source.
        seed: Same seed, same split.

    Raises:
        DataError: There are too few rows, or the field that the method needs cannot be used.
    """
    if len(parts["val"]) and len(parts["test"]):
        return parts
    fractions = (
        0.0 if len(parts["val"]) else config.val_fraction,
        0.0 if len(parts["test"]) else config.test_fraction,
    )
    rows = parts["train"]
    method, by = config.split.method, config.split.by
    dealt = _METHODS[method](
        corpus, rows, by, (names, (config.dedup.threshold, config.dedup.num_perm)), (*fractions, seed)
    )
    return {
        "train": rows[dealt.train],
        "val": parts["val"] if len(parts["val"]) else rows[dealt.val],
        "test": parts["test"] if len(parts["test"]) else rows[dealt.test],
    }


Shares = tuple[float, float, int]
"""Shares of validation and test, and the seed."""
Facts = tuple[Sequence[str], tuple[float, int]]
"""Names of the sources; similarity and permutations of near duplicates."""


def _random(corpus: Corpus, rows: Numbers, by: str | None, facts: Facts, shares: Shares) -> Split:
    return random_split(len(rows), *shares)


def _stratified(corpus: Corpus, rows: Numbers, by: str | None, facts: Facts, shares: Shares) -> Split:
    if by == "source":
        strata = [facts[0][source] for source in corpus.sources[rows]]
    elif by == "length":
        strata = length_bins([len(conversation_text(record)) for record in corpus.stream(rows)])
    else:
        strata = _values(corpus, rows)
    return stratified_split(strata, *shares)


def _grouped(corpus: Corpus, rows: Numbers, by: str | None, facts: Facts, shares: Shares) -> Split:
    if by != "near":
        return grouped_split(_values(corpus, rows), *shares)
    texts = (conversation_text(record) for record in corpus.stream(rows))
    return grouped_split(near_duplicate_clusters(texts, *facts[1]), *shares)


def _temporal(corpus: Corpus, rows: Numbers, by: str | None, facts: Facts, shares: Shares) -> Split:
    val_fraction, test_fraction, _ = shares

    def place(row: int) -> str:
        """Names the file and place of a row, counted among those that are dealt."""
        return corpus.place(int(rows[row]))

    return temporal_split(_values(corpus, rows), val_fraction, test_fraction, place)


def _hash(corpus: Corpus, rows: Numbers, by: str | None, facts: Facts, shares: Shares) -> Split:
    keys = corpus.keys()
    return hash_split([keys[row] for row in rows], *shares)


def _values(corpus: Corpus, rows: Numbers) -> list[str]:
    values = corpus.values()
    return [values[row] for row in rows]


_METHODS: dict[str, Callable[[Corpus, Numbers, str | None, Facts, Shares], Split]] = {
    "random": _random,
    "stratified": _stratified,
    "grouped": _grouped,
    "temporal": _temporal,
    "hash": _hash,
}
"""The function of each `data.split.method`."""
