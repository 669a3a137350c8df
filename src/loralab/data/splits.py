"""Which rows train, validate and test."""

import contextlib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from loralab.errors import DataError

MIN_ROWS = 3
VAL, TEST = 1, 2
NUM_LENGTH_BINS = 10
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of each part, from 0, in order and without overlap."""

    train: Rows
    val: Rows
    test: Rows


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
    num_val, num_test = _held_out_sizes(num_rows, val_fraction, test_fraction)
    order = np.random.default_rng(seed).permutation(num_rows)
    is_val, is_test = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
    is_val[order[:num_val]] = True
    is_test[order[num_val : num_val + num_test]] = True
    return _split(is_val, is_test)


def stratified_split(
    strata: Sequence[Hashable], val_fraction: float, test_fraction: float, seed: int
) -> Split:
    """Deals the rows of every stratum in the given shares, at random within it.

    The parts have the sizes of `random_split`. A stratum gives a part the whole number below or above its
    quota: the rows that rounding down leaves go to the largest remainders, equal ones at random.

    Args:
        strata: The stratum of each row.
        val_fraction: Share for validation; 0 gives none.
        test_fraction: Share for the test; 0 gives none.
        seed: Same seed, same split.

    Raises:
        DataError: There are too few rows to hold any out.
    """
    num_val, num_test = _held_out_sizes(len(strata), val_fraction, test_fraction)
    rng = np.random.default_rng(seed)
    codes, sizes = _groups(strata)
    val = _quotas(sizes, num_val, sizes, rng)
    test = _quotas(sizes, num_test, sizes - val, rng)
    order = rng.permutation(len(strata))
    order = order[np.argsort(codes[order], kind="stable")]
    place = np.empty(len(strata), np.int64)
    place[order] = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_val = place < val[codes]
    return _split(is_val, ~is_val & (place < (val + test)[codes]))


def length_bins(lengths: Sequence[int], num_bins: int = NUM_LENGTH_BINS) -> list[str]:
    """Names a stratum such as `12-40` for each length: bins of about as many rows, equal lengths together."""
    if not len(lengths):
        return []
    values = np.asarray(lengths)
    inner = np.quantile(values, np.arange(1, num_bins) / num_bins)
    bins = np.searchsorted(np.unique(inner), values)
    names = {}
    for bin_ in np.unique(bins).tolist():
        members = values[bins == bin_]
        names[bin_] = f"{members.min()}-{members.max()}"
    return [names[bin_] for bin_ in bins.tolist()]


def grouped_split(groups: Sequence[Hashable], val_fraction: float, test_fraction: float, seed: int) -> Split:
    """Deals whole groups at random, so that no group stands in two parts.

    The groups are gone through in a random order: the part that has the least of its share takes a group if
    that brings it closer to the share. A part that none fits gets the smallest group left.

    Args:
        groups: The group of each row.
        val_fraction: Share of the rows for validation; 0 gives none.
        test_fraction: Share of the rows for the test; 0 gives none.
        seed: Same seed, same split.

    Raises:
        DataError: There are fewer groups than parts.
    """
    codes, sizes = _groups(groups)
    parts = _asked(val_fraction, test_fraction)
    if len(sizes) < parts + 1:
        raise DataError(
            f"data.split.by gives {len(sizes)} groups, too few for {parts + 1} parts that share none: choose "
            "a field with more values or data.split.method=random, or give data.val_path and data.test_path."
        )
    targets = {VAL: len(codes) * val_fraction, TEST: len(codes) * test_fraction}
    order = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    part_of_row = _deal_groups(order, sizes, {part: rows for part, rows in targets.items() if rows})[codes]
    return _split(part_of_row == VAL, part_of_row == TEST)


def _deal_groups(order: Sequence[int], sizes: Rows, targets: Mapping[int, float]) -> Rows:
    part_of_group = np.zeros(len(sizes), np.int64)
    rows = dict.fromkeys(targets, 0)
    spare = len(sizes) - 1 - len(targets)
    for group in order if targets else ():
        part = min(targets, key=lambda part: rows[part] / targets[part])
        if rows[part] >= targets[part]:
            break
        if (spare or not rows[part]) and rows[part] + sizes[group] / 2 <= targets[part]:
            spare -= bool(rows[part])
            rows[part] += int(sizes[group])
            part_of_group[group] = part
    for part in (part for part in targets if not rows[part]):
        left = (group for group in order if not part_of_group[group])
        part_of_group[min(left, key=lambda group: sizes[group])] = part
    return part_of_group


def _number_of(row: int) -> str:
    return f"row {row + 1}"


def temporal_split(
    times: Sequence[str | float | date],
    val_fraction: float,
    test_fraction: float,
    place: Callable[[int], str] = _number_of,
) -> Split:
    """Holds out the newest rows for the test and those before them for validation; equal times stay together.

    Args:
        times: The time of each row: all numbers (or their text), or all ISO 8601; UTC where no zone is given.
        val_fraction: Share for validation; 0 gives none.
        test_fraction: Share for the test; 0 gives none.
        place: Names a row in messages, given its number from 0.

    Raises:
        DataError: A time cannot be read, or there are fewer times than parts.
    """
    distinct, codes, sizes = np.unique(_read_times(times, place), return_inverse=True, return_counts=True)
    parts = _asked(val_fraction, test_fraction)
    if len(distinct) < parts + 1:
        raise DataError(
            f"data.split.by gives {len(distinct)} different times, too few for {parts + 1} parts: choose "
            "another field or data.split.method=random, or give data.val_path and data.test_path."
        )
    newer = np.cumsum(sizes[::-1])
    num_times, taken = 0, []
    for fraction in (test_fraction, val_fraction):
        first = num_times
        if fraction:
            parts -= 1
            before = newer[num_times - 1] if num_times else 0
            options = newer[num_times : len(distinct) - parts - 1] - before
            num_times += 1 + int(np.argmin(np.abs(options - len(codes) * fraction)))
        taken.append((codes < len(distinct) - first) & (codes >= len(distinct) - num_times))
    is_test, is_val = taken
    return _split(is_val, is_test)


def _read_times(
    times: Sequence[str | float | date], place: Callable[[int], str]
) -> NDArray[np.float64] | Rows:
    """Returns the numbers, or microseconds where the times are ISO 8601."""
    kinds: tuple[tuple[Callable[..., float], type], ...] = ((_read_number, np.float64), (_read_iso, np.int64))
    faults = []
    for read, dtype in kinds:
        try:
            return np.fromiter(map(read, times, range(1, len(times) + 1)), dtype, len(times))
        except _Unreadable as error:
            faults.append(error.args[0])
    row = max(faults)
    raise DataError(
        f"data.split.by: {times[row - 1]!r} in {place(row - 1)} is no time like the other rows': "
        "data.split.method=temporal needs a number in every row, or in every row a date or time in ISO 8601 "
        "such as 2024-05-31 or 2024-05-31T12:00:00Z."
    )


class _Unreadable(Exception):
    """Carries the number of the row whose time cannot be read, from 1."""


def _read_number(value: object, row: int) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            if math.isfinite(number := float(value)):
                return number
    raise _Unreadable(row)


def _read_iso(value: object, row: int) -> int:
    text = value.isoformat() if isinstance(value, date) else value
    if isinstance(text, str):
        with contextlib.suppress(ValueError):
            time = datetime.fromisoformat(text.strip())
            return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)
    raise _Unreadable(row)


def hash_split(keys: Sequence[bytes], val_fraction: float, test_fraction: float, seed: int) -> Split:
    """Deals each row by the hash of its content alone, so that rows added later move no old one.

    A row with a hash below `test_fraction` of the range is tested, one below `test_fraction + val_fraction`
    validates, the others train; the parts have their shares on average.

    Args:
        keys: Content key of each row; equal rows are in one part.
        val_fraction: Share for validation; 0 gives none.
        test_fraction: Share for the test; 0 gives none.
        seed: Same seed, same split; 0 or more, below 2^64.

    Raises:
        DataError: A part got no row.
    """
    salt = seed.to_bytes(8, "little")
    hashes = (int.from_bytes(blake2b(key + salt, digest_size=8).digest(), "little") for key in keys)
    place = np.fromiter(hashes, np.uint64, len(keys)) / 2.0**64
    is_test = place < test_fraction
    split = _split(~is_test & (place < test_fraction + val_fraction), is_test)
    for name, part, fraction in (("val", split.val, val_fraction), ("test", split.test, test_fraction)):
        if fraction and not len(part):
            raise DataError(
                f"data.split.method=hash: none of the {len(keys)} rows falls into the share of "
                f"data.{name}_fraction={fraction:g}: make it larger, or choose data.split.method=random."
            )
    return split


def _asked(val_fraction: float, test_fraction: float) -> int:
    return bool(val_fraction) + bool(test_fraction)


def _held_out_sizes(num_rows: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    if num_rows < MIN_ROWS:
        raise DataError(
            f"{num_rows} usable rows are too few to hold out validation and test rows: "
            "add rows, or give data.val_path and data.test_path."
        )
    num_val, num_test = (
        max(1, round(num_rows * fraction)) if fraction else 0 for fraction in (val_fraction, test_fraction)
    )
    # Rounding two shares near one half may leave nothing to train on.
    return num_val - (num_val + num_test == num_rows), num_test


def _groups(values: Sequence[Hashable]) -> tuple[Rows, Rows]:
    """Returns the number of each row's group, in order of appearance, and the rows of each group."""
    numbers: dict[Hashable, int] = {}
    codes = np.fromiter((numbers.setdefault(v, len(numbers)) for v in values), np.int64, len(values))
    return codes, np.bincount(codes, minlength=len(numbers))


def _quotas(sizes: Rows, count: int, room: Rows, rng: np.random.Generator) -> Rows:
    """Deals `count` rows to strata in proportion to their sizes, by largest remainder."""
    counts, remainders = np.divmod(sizes * count, sizes.sum())
    order = np.lexsort((rng.random(len(sizes)), -remainders))
    while missing := count - counts.sum():
        counts[order[(counts < room)[order]][:missing]] += 1
    return counts


def _split(is_val: NDArray[np.bool_], is_test: NDArray[np.bool_]) -> Split:
    return Split(*(np.flatnonzero(part) for part in (~is_val & ~is_test, is_val, is_test)))
