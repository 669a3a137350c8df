"""What rows look like: who speaks, how often, and how much."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loralab.data.corpus import Corpus
from loralab.data.dedup import split_prompt
from loralab.data.records import Message, Record, all_messages

ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Spread:
    """The lowest, the middle and the highest of many numbers."""

    low: int
    """The lowest."""
    median: float
    """The middle one."""
    p95: float
    """What 95% are at most."""
    high: int
    """The highest."""


@dataclass
class Profile:
    """What the kept rows hold."""

    rows: int = 0
    """How many."""
    roles: Counter[str] = field(default_factory=Counter)
    """Turns by role, the rejected ones of a pair included."""
    parts: Counter[str] = field(default_factory=Counter)
    """Rows that have a system prompt, tools, tool calls, reasoning or weights."""
    turns: Counter[int] = field(default_factory=Counter)
    """Rows by their number of turns, system prompts not counted."""
    chars: dict[str, "array[int]"] = field(default_factory=dict)
    """Characters of each row: all of it, its prompt and its answer."""

    def add(self, record: Record) -> None:
        """Counts one row."""
        self.rows += 1
        messages = all_messages(record)
        self.roles.update(message.role for message in messages)
        self.turns[sum(message.role != "system" for message in record.messages)] += 1
        for name, has_it in _parts(record, messages).items():
            self.parts[name] += has_it
        prompt, answer = split_prompt(record)
        for name, turns in (("row", messages), ("prompt", prompt), ("answer", answer)):
            if turns:
                self.chars.setdefault(name, array("q")).append(sum(len(turn.content) for turn in turns))


def make_profile(corpus: Corpus, numbers: NDArray[np.int64]) -> Profile:
    """Looks at the rows of the given numbers."""
    profile = Profile()
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        for record in corpus.records(numbers[start : start + ROWS_AT_ONCE]):
            profile.add(record)
    return profile


def spread(values: Sequence[int]) -> Spread:
    """Returns the lowest, the median, the 95th percentile and the highest of at least one number."""
    numbers = np.asarray(values)
    median, p95 = np.percentile(numbers, [50, 95])
    return Spread(int(numbers.min()), float(median), float(p95), int(numbers.max()))


def _parts(record: Record, messages: Sequence[Message]) -> dict[str, bool]:
    return {
        "system prompt": messages[0].role == "system",
        "tools": bool(record.tools),
        "tool calls": any(message.tool_calls for message in messages),
        "reasoning": any(message.reasoning for message in messages),
        "weights": any(message.weight is not None for message in messages),
    }
