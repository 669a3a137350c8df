"""How often the rows of several sources are seen in one epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loralab.errors import DataError


@dataclass(frozen=True)
class SourceShare:
    """What a source holds and what an epoch takes of it: `rows` if given, else by `weight`, else `epochs`."""

    num_rows: int
    """Rows of the source."""
    weight: float | None
    """Share of the examples of all sources with a weight, relative to their weights; above 0."""
    rows: int | None
    """Examples of an epoch."""
    epochs: float
    """Times that an epoch sees each row; above 0."""


def mix(shares: Sequence[SourceShare], seed: int) -> NDArray[np.int64]:
    """Draws the examples of one epoch from several sources.

    The sources with a weight together give as many examples as they have rows. Every source gives whole
    passes over its rows and a sample without repeats for the rest. A sample depends on the seed, the place of
    the source and its own rows only, and a larger one contains a smaller one.

    Args:
        shares: What each source holds and gives.
        seed: Same seed, same sample.

    Returns:
        Sorted indices into the rows of all sources, one source after the other; repeats stand side by side.

    Raises:
        DataError: A source that must give examples has no rows.
    """
    starts = np.cumsum([0, *(share.num_rows for share in shares)])
    parts = [
        start + _draw(share.num_rows, count, np.random.default_rng([seed, index]))
        for index, (share, count, start) in enumerate(
            zip(shares, example_counts(shares), starts, strict=False)
        )
    ]
    return np.concatenate([np.empty(0, np.int64), *parts])


def example_counts(shares: Sequence[SourceShare]) -> list[int]:
    """Returns how many examples each source gives to one epoch.

    Raises:
        DataError: A source that must give examples has no rows.
    """
    for index, share in enumerate(shares):
        if not share.num_rows and (share.rows or share.weight):
            key, value = ("rows", share.rows) if share.rows else ("weight", share.weight)
            raise DataError(
                f"data.sources[{index}].{key}={value} asks for examples, but no row of that source is left: "
                "see what left its rows out, or remove the source."
            )
    weighted = [
        index for index, share in enumerate(shares) if share.rows is None and share.weight is not None
    ]
    total = sum(shares[index].num_rows for index in weighted)
    dealt = dict(
        zip(weighted, _deal(total, [shares[index].weight or 0.0 for index in weighted]), strict=True)
    )
    return [
        share.rows if share.rows is not None else dealt.get(index, _epoch_examples(share))
        for index, share in enumerate(shares)
    ]


def _epoch_examples(share: SourceShare) -> int:
    # Rounded first: 1.1 * 50 is 55.00000000000001 in floating point. Few rows still give one example.
    return max(min(1, share.num_rows), math.floor(round(share.epochs * share.num_rows, 6) + 0.5))


def _deal(total: int, weights: Sequence[float]) -> list[int]:
    """Deals a number by weights: the whole parts of the quotas, then one each to the largest remainders."""
    if not sum(weights):
        return [0] * len(weights)
    quotas = [total * weight / math.fsum(weights) for weight in weights]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda index: counts[index] - quotas[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _draw(num_rows: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if not num_rows:
        return np.empty(0, np.int64)
    passes, rest = divmod(count, num_rows)
    repeats = np.full(num_rows, passes)
    if rest:
        repeats[rng.permutation(num_rows)[:rest]] += 1
    return np.repeat(np.arange(num_rows), repeats)
