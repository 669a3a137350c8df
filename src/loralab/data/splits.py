"""Which rows train, validate and test."""

from dataclasses import dataclass

import numpy as np

from loralab.errors import DataError

MIN_ROWS = 3


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, from 0, without overlap."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]


def random_split(num_rows: int, val_fraction: float, test_fraction: float, seed: int) -> Split:
    """Deals rows at random; each part that is asked for gets at least one row.

    Args:
        num_rows: Rows to deal.
        val_fraction: Share for validation; 0 gives none.
        test_fraction: Share for the test; 0 gives none.
        seed: Same seed, same split.

    Raises:
        DataError: There are too few rows to hold any out.
    """
    if num_rows < MIN_ROWS:
        raise DataError(
            f"{num_rows} usable rows are too few to hold out validation and test rows: "
            "add rows, or give data.val_path and data.test_path."
        )
    num_val, num_test = (
        max(1, round(num_rows * fraction)) if fraction else 0 for fraction in (val_fraction, test_fraction)
    )
    order = np.random.default_rng(seed).permutation(num_rows).tolist()
    held_out = num_val + num_test
    return Split(
        train=tuple(sorted(order[held_out:])),
        val=tuple(sorted(order[:num_val])),
        test=tuple(sorted(order[num_val:held_out])),
    )
