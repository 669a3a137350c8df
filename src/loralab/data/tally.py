"""What became of every row: rows in are rows kept plus rows counted as removed, always."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loralab.data.privacy import FINDERS, mask_text
from loralab.data.records import Message, Record

SHOWN_EXAMPLES = 5
"""Removed rows that are kept as examples, for each reason of removal."""
EXCERPT_CHARS = 200
MESSAGE_CHARS = 600


@dataclass(frozen=True, slots=True)
class RemovedRow:
    """A row that was left out, as reports show it."""

    file: str
    """The file that it stands in."""
    place: str
    """Its place there, such as `line 7`."""
    reason: str
    """Why, in one line."""
    excerpt: str = ""
    """The beginning of what it says."""

    @property
    def order(self) -> tuple[str, int]:
        """Sorts rows as they stand in their files."""
        return self.file, int(self.place.rpartition(" ")[2])


@dataclass
class Removals:
    """The rows that one check left out."""

    count: int = 0
    """How many."""
    examples: list[RemovedRow] = field(default_factory=list)
    """The first of them."""


@dataclass
class Tally:
    """The count of one source or split."""

    rows: int = 0
    """Rows that came in."""
    removed: dict[str, Removals] = field(default_factory=dict)
    """The rows left out, by the check that did it."""

    @property
    def num_removed(self) -> int:
        """Rows left out by any check."""
        return sum(removals.count for removals in self.removed.values())

    @property
    def kept(self) -> int:
        """Rows that went on."""
        return self.rows - self.num_removed

    def describe(self) -> str:
        """Lists how many rows each check left out, such as `3 duplicate, 1 invalid`."""
        return ", ".join(f"{removals.count:,} {check}" for check, removals in self.removed.items())

    def remove(self, check: str, row: RemovedRow) -> None:
        """Counts a row that a check left out and keeps the first few as examples."""
        removals = self.removed.setdefault(check, Removals())
        removals.count += 1
        if len(removals.examples) < SHOWN_EXAMPLES:
            removals.examples.append(row)

    def add(self, other: "Tally") -> None:
        """Adds the counts of another part of the same rows."""
        self.rows += other.rows
        for check, theirs in other.removed.items():
            ours = self.removed.setdefault(check, Removals())
            ours.count += theirs.count
            ours.examples = (ours.examples + theirs.examples)[:SHOWN_EXAMPLES]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Tally":
        """Reads what `dataclasses.asdict` wrote."""
        return cls(values["rows"], {
            check: Removals(each["count"], [RemovedRow(**row) for row in each["examples"]])
            for check, each in values["removed"].items()
        })  # fmt: skip


def shorten(message: str) -> str:
    """Leaves out the middle of a message that quotes a row at length."""
    if len(message) <= MESSAGE_CHARS:
        return message
    return f"{message[: MESSAGE_CHARS - 300]} … {message[-300:]}"


def describe_removed(record: Record, reason: str, kinds: Sequence[str]) -> RemovedRow:
    """Describes a record that is left out.

    Args:
        record: The record.
        reason: Why, in words that may quote it.
        kinds: The kinds of personal data to mask.
    """
    shown = excerpt_turns(record.messages, kinds)
    return RemovedRow(record.source, record.place, mask_text(reason, kinds), shown)


def excerpt_turns(messages: Iterable[Message], kinds: Sequence[str] = tuple(FINDERS)) -> str:
    """Shortens the texts of turns to what a report shows of them.

    Args:
        messages: The turns.
        kinds: The kinds of personal data to mask.
    """
    # Masked before it is cut: half an address is not found, and may say as much as the whole.
    return excerpt(" / ".join(mask_text(message.content, kinds)[:EXCERPT_CHARS] for message in messages))


def excerpt(text: str) -> str:
    """Shortens a text to what a report shows of it, on one line."""
    line = " ".join(text[: 2 * EXCERPT_CHARS].split())
    return line if len(line) <= EXCERPT_CHARS else f"{line[:EXCERPT_CHARS]}…"
