"""How examples fill the rows of an epoch: one each, packed, or grouped by length."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from loralab.data.collate import PAD_MULTIPLE
from loralab.data.packing import Packs, group_by_tokens, pack_best_fit


@dataclass(frozen=True, eq=False)
class Layout:
    """Assigns examples to the units of an epoch; a pure function of lengths, mixture, seed and epoch.

    A unit is what the step plan deals: an example, a packed row, or a micro-batch of similar lengths.
    Every epoch has the same number of units.
    """

    lengths: NDArray[np.int64]
    """Tokens of each example."""
    mixture: NDArray[np.int64]
    """The examples of one epoch, with repeats."""
    seed: int
    """Seed of what is packed or grouped together."""
    pack_length: int | None = None
    """Tokens of a packed row; None does not pack."""
    batch_tokens: int | None = None
    """Most tokens of a micro-batch, padding included; None counts examples."""

    @property
    def is_packed(self) -> bool:
        """Whether a unit is a packed row."""
        return self.pack_length is not None

    @property
    def is_grouped(self) -> bool:
        """Whether a unit is a whole micro-batch."""
        return self.pack_length is None and self.batch_tokens is not None

    @property
    def num_units(self) -> int:
        """Units of an epoch."""
        return len(_units(self, 0)) if self.is_packed or self.is_grouped else len(self.mixture)

    def unit(self, epoch: int, number: int) -> NDArray[np.int64]:
        """The examples of one unit of an epoch."""
        if not (self.is_packed or self.is_grouped):
            return self.mixture[number : number + 1]
        return self.mixture[_units(self, epoch)[number]]

    @property
    def fill(self) -> float:
        """Share of the tokens of packed rows that hold text."""
        assert self.pack_length is not None
        return _units(self, 0).fill(self.lengths[self.mixture], self.pack_length)


@lru_cache(maxsize=2)
def _units(layout: Layout, epoch: int) -> Packs:
    lengths = layout.lengths[layout.mixture]
    order = np.random.default_rng((layout.seed, epoch, 1)).permutation(len(lengths))
    if layout.pack_length is not None:
        return pack_best_fit(lengths, layout.pack_length, order)
    assert layout.batch_tokens is not None
    return group_by_tokens(lengths, layout.batch_tokens, PAD_MULTIPLE, order)
