"""What must hold before training starts, and the ledger of what was kept, cut and dropped."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.templating import special_tokens
from loralab.errors import DataError

SHOWN_ROWS = 3


@dataclass(frozen=True)
class Ledger:
    """What became of the rows of a split; lengths are in tokens."""

    rows: int
    """Rows read."""
    kept: int
    """Rows trained or measured on."""
    truncated: int
    """Rows kept in part."""
    dropped: int
    """Rows left out for their length."""
    tokens: int
    """Tokens of the kept rows."""
    supervised_tokens: int
    """Tokens of the kept rows that are learned."""
    supervised_tokens_lost: int
    """Tokens that would have been learned in what was cut or dropped."""
    length_p50: float
    """Median length of the kept rows."""
    length_max: int
    """Length of the longest kept row."""


def drop_over_length(
    examples: Sequence[Example], max_length: int, max_dropped: float, split: str
) -> tuple[list[Example], Ledger]:
    """Drops examples longer than `max_length` tokens and accounts for every row.

    Raises:
        DataError: More than the share `max_dropped` would be dropped, or nothing is left.
    """
    kept = [example for example in examples if len(example.input_ids) <= max_length]
    lengths = [len(example.input_ids) for example in examples]
    dropped = len(examples) - len(kept)
    share = dropped / len(examples)
    if share > max_dropped or not kept:
        too_long = (example for example in examples if len(example.input_ids) > max_length)
        longest = max(lengths)
        # Rounded up, so that the advice is enough.
        allowance = f", or allow the loss with data.max_dropped={math.ceil(share * 1000) / 1000}"
        raise DataError(
            f"{dropped} of {len(examples)} {split} rows are longer than data.max_length={max_length} tokens "
            f"(the longest has {longest}): {_places(too_long)}. Use data.max_length={longest}"
            f"{allowance if kept else ''}."
        )
    supervised = [example.num_supervised for example in examples]
    kept_supervised = sum(example.num_supervised for example in kept)
    ledger = Ledger(
        rows=len(examples),
        kept=len(kept),
        truncated=0,
        dropped=dropped,
        tokens=sum(len(example.input_ids) for example in kept),
        supervised_tokens=kept_supervised,
        supervised_tokens_lost=sum(supervised) - kept_supervised,
        length_p50=statistics.median(len(example.input_ids) for example in kept),
        length_max=max(len(example.input_ids) for example in kept),
    )
    return kept, ledger


def check_supervision(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, split: str) -> None:
    """Refuses examples that would teach nothing or the wrong thing.

    Raises:
        DataError: Some example has no supervised token, does not learn to stop, or starts with two
            beginning-of-sequence tokens; the message shows rows.
    """
    stops = set(special_tokens(tokenizer).values())
    bos = tokenizer.bos_token_id
    faults = {
        "have no token to learn": [e for e in examples if e.num_supervised == 0],
        "do not learn their end-of-turn token": [
            e for e in examples if e.labels[-1:] and not _stops(e, stops)
        ],
        "begin with two beginning-of-sequence tokens": [
            e for e in examples if bos is not None and e.input_ids[:2] == [bos, bos]
        ],
    }
    messages = [
        f"{len(bad)} of {len(examples)} {split} rows {what}: {_places(bad)}"
        for what, bad in faults.items()
        if bad
    ]
    if messages:
        raise DataError("; ".join(messages) + ". Mend the rows or the chat template.")


def _stops(example: Example, stops: set[int]) -> bool:
    learned = [label for label in example.labels if label != IGNORE_INDEX]
    return not learned or learned[-1] in stops


def _places(examples: Iterable[Example]) -> str:
    rows = [f"{e.conversation.source} row {e.conversation.row}" for e in examples]
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    return ", ".join(rows[:SHOWN_ROWS]) + more
