"""Which rows each optimizer step sees: a pure function of (rows, seed, step)."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StepPlan:
    """The order of a run, known before it starts; any step can be asked for on its own."""

    num_rows: int
    """Rows of an epoch: examples, packed rows, or groups of examples."""
    rows_per_step: int
    """Rows of one optimizer step; the last step of an epoch may have fewer."""
    epochs: float
    """Passes over the rows."""
    max_steps: int | None
    """Optimizer steps; None follows `epochs`."""
    val_every: float
    """Steps between validations, or below 1 the share of an epoch."""
    seed: int
    """Seed of the order."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the examples."""
        return math.ceil(self.num_rows / self.rows_per_step)

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        # Rounded first: 1.1 epochs of 50 steps are 55.00000000000001 in floating point.
        return self.max_steps or max(1, math.ceil(round(self.epochs * self.steps_per_epoch, 6)))

    @cached_property
    def val_interval(self) -> int:
        """Optimizer steps between validations, at least 1."""
        every = self.val_every * self.steps_per_epoch if self.val_every < 1 else self.val_every
        return min(max(1, round(every)), self.total_steps)

    def next_validation(self, step: int) -> int:
        """The number of finished steps at which the next validation after `step` steps is due."""
        return min(self.total_steps, (step // self.val_interval + 1) * self.val_interval)

    def num_validations(self, step: int) -> int:
        """How many validations are still due after `step` steps."""
        if step >= self.total_steps:
            return 0
        return math.ceil(self.total_steps / self.val_interval) - step // self.val_interval

    def epoch_at(self, step: int) -> float:
        """Passes over the examples after `step` steps."""
        return step / self.steps_per_epoch

    def rows(self, step: int) -> list[int]:
        """The rows of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.num_rows, self.seed, epoch)
        chosen = order[place * self.rows_per_step : (place + 1) * self.rows_per_step]
        return [int(row) for row in chosen]


@lru_cache(maxsize=1)
def _epoch_order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(num_rows)
