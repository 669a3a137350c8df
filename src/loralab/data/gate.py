"""What must hold before training starts, and the ledger of what was kept, cut and dropped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loralab.data.fitting import CUTS
from loralab.data.masking import Encoded
from loralab.errors import DataError

SHOWN_ROWS = 3
BIN_EDGES = 24

NOTHING_TO_LEARN = "have no token to learn"
NO_STOP = "do not learn their end-of-turn token"
DOUBLE_BOS = "begin with two beginning-of-sequence tokens"


@dataclass(frozen=True)
class Ledger:
    """What became of the rows of a split; lengths are in tokens."""

    rows: int
    """Rows that came to be rendered."""
    kept: int
    """Rows trained or measured on."""
    truncated: int
    """Rows kept in part."""
    dropped: int
    """Rows left out for their length."""
    examples: int
    """Examples made of the kept rows; more than rows where documents are cut into windows."""
    tokens: int
    """Tokens of the examples."""
    supervised_tokens: int
    """Tokens of the examples that are learned."""
    supervised_tokens_lost: int
    """Tokens that would have been learned in what was cut or dropped."""
    length_p50: float
    """Median length of the examples."""
    length_max: int
    """Length of the longest example."""
    histogram: dict[str, list[int]] = field(default_factory=dict)
    """`edges` (of equal width) and `counts` of the lengths of the rows as rendered, before any was cut."""


@dataclass
class LengthCount:
    """The counts of a ledger, gathered chunk by chunk."""

    rows: int = 0
    truncated: int = 0
    dropped: int = 0
    supervised_lost: int = 0
    lengths: list[int] = field(default_factory=list)
    """Tokens of every row as rendered."""
    too_long: list[str] = field(default_factory=list)
    """Places of the first rows over the limit."""
    filtered: int = 0
    """Rows left out by the token limits of `data.quality`."""
    long_texts: int = 0
    """Plain documents among the rows over the limit; the others are chats."""
    policy: str = "drop"
    """What was done about rows over the limit: `data.over_length`."""

    def add(self, other: "LengthCount") -> None:
        """Adds the counts of another chunk."""
        self.rows += other.rows
        self.truncated += other.truncated
        self.dropped += other.dropped
        self.supervised_lost += other.supervised_lost
        self.lengths += other.lengths
        self.filtered += other.filtered
        self.long_texts += other.long_texts
        self.policy = other.policy
        self.too_long = (self.too_long + other.too_long)[: SHOWN_ROWS + 1]


def make_ledger(count: LengthCount, lengths: NDArray[np.int64], supervised: NDArray[np.int64]) -> Ledger:
    """Closes the account of a split.

    Args:
        count: What was counted on the way.
        lengths: Tokens of each example that was kept.
        supervised: Tokens of each that are learned.
    """
    return Ledger(
        rows=count.rows,
        kept=count.rows - count.dropped - count.filtered,
        truncated=count.truncated,
        dropped=count.dropped,
        examples=len(lengths),
        tokens=int(lengths.sum()),
        supervised_tokens=int(supervised.sum()),
        supervised_tokens_lost=count.supervised_lost,
        length_p50=float(np.median(lengths)) if len(lengths) else 0.0,
        length_max=int(lengths.max(initial=0)),
        histogram=_histogram(count.lengths),
    )


def check_lengths(count: LengthCount, num_examples: int, limits: tuple[int, float], split: str) -> None:
    """Refuses a split that loses too much to the length limit.

    Args:
        count: What was counted.
        num_examples: Examples that are left.
        limits: `data.max_length` and `data.max_dropped`.
        split: Name of the split.

    Raises:
        DataError: More rows than the allowed share would be dropped or cut, or nothing is left.
    """
    max_length, max_dropped = limits
    lost, rows = count.dropped + count.truncated, count.rows - count.filtered
    if not lost or (lost / rows <= max_dropped and num_examples):
        return
    longest = max(count.lengths)
    over = sum(length > max_length for length in count.lengths)
    raise DataError(
        f"{over} of {rows} {split} rows are longer than data.max_length={max_length} tokens "
        f"(the longest has {longest}): {_places(count.too_long, over)}."
        f"{_misfit(count.policy, count.long_texts, over)} Use {_remedies(count, over, bool(num_examples))}."
    )


def _misfit(policy: str, num_texts: int, over: int) -> str:
    """Says that a policy does nothing for some of the rows over the limit; empty where that is not so."""
    num_unfit = over - num_texts if policy == "window" else num_texts if policy in CUTS else 0
    if not num_unfit:
        return " Rows that are cut count as lost." if policy in CUTS else ""
    fit, unfit = ("plain texts", "chats") if policy == "window" else ("chats", "plain texts")
    return f" data.over_length={policy} shortens {fit} only, and {num_unfit} of the rows are {unfit}."


def _remedies(count: LengthCount, over: int, is_any_left: bool) -> str:
    """Lists the settings under which the rows over the limit would pass."""
    rows, policy = count.rows - count.filtered, count.policy
    remedies = [f"data.max_length={max(count.lengths)}"]
    if count.long_texts and policy != "window":
        remedies.append("cut plain texts into windows with data.over_length=window")
    if over > count.long_texts and policy not in CUTS:
        remedies.append(
            f"cut chats with data.over_length={CUTS[0]} (or {', '.join(CUTS[1:])}) and "
            f"data.max_dropped={_share(over, rows)}"
        )
    if is_any_left:
        drop = "data.over_length=drop and " if policy == "raise" else ""
        remedies.append(
            f"allow the loss with {drop}data.max_dropped={_share(count.dropped + count.truncated, rows)}"
        )
    return ", or ".join(remedies)


def _share(part: int, whole: int) -> float:
    # Rounded up, so that the advice is enough.
    return math.ceil(part / whole * 1000) / 1000


def find_gate_faults(
    encoded: Encoded, ends_open: bool, stop_ids: frozenset[int], bos_id: int | None
) -> list[str]:
    """Names what would make an example teach nothing or the wrong thing.

    Args:
        encoded: The example.
        ends_open: Whether its last answer was cut, so that there is no end-of-turn token to learn.
        stop_ids: Every special token: one of them must end what is learned.
        bos_id: The beginning-of-sequence token.
    """
    faults = []
    if encoded.num_supervised == 0 or not any(np.float32(weight) > 0 for _, _, weight in encoded.spans):
        faults.append(NOTHING_TO_LEARN)
    elif not ends_open and encoded.input_ids[encoded.spans[-1][1] - 1] not in stop_ids:
        faults.append(NO_STOP)
    if bos_id is not None and encoded.input_ids[:2] == [bos_id, bos_id]:
        faults.append(DOUBLE_BOS)
    return faults


def check_supervision(faults: dict[str, list[str]], num_examples: int, split: str) -> None:
    """Refuses a split with examples that would teach nothing or the wrong thing.

    Args:
        faults: The places of the faulty examples under each fault.
        num_examples: Examples that were checked.
        split: Name of the split.

    Raises:
        DataError: There are any; the message shows rows.
    """
    messages = [
        f"{len(places)} of {num_examples} {split} rows {what}: {_places(places, len(places))}"
        for what, places in faults.items()
    ]
    if messages:
        raise DataError("; ".join(messages) + ". Mend the rows, data.supervise or the chat template.")


def _places(places: Sequence[str], total: int) -> str:
    more = f" and {total - SHOWN_ROWS} more" if total > SHOWN_ROWS else ""
    return ", ".join(places[:SHOWN_ROWS]) + more


def _histogram(lengths: Sequence[int]) -> dict[str, list[int]]:
    if not lengths:
        return {}
    width = max(1, math.ceil((max(lengths) + 1) / BIN_EDGES))
    edges = [width * place for place in range(BIN_EDGES + 1)]
    counts = np.bincount(np.array(lengths) // width, minlength=BIN_EDGES)[:BIN_EDGES]
    return {"edges": edges, "counts": counts.tolist()}
