"""What the data of a run is and what became of its rows, as files and pages show it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loralab.data.gate import Ledger
from loralab.data.tally import SHOWN_EXAMPLES, RemovedRow, Tally


@dataclass(frozen=True)
class DataFile:
    """A file that rows came from, pinned by its content."""

    path: str
    """The file, or `hub:owner/name`."""
    sha256: str
    """SHA-256 of its content; of a Hub dataset the commit."""


@dataclass
class SourceReport:
    """One source and what became of its rows before the split."""

    name: str
    """Name in tables and metrics."""
    part: str
    """train, val or test."""
    form: str
    """The form of its rows, and how it was found."""
    tally: Tally
    """Rows read, and the ones left out by each check."""
    private: dict[str, int] = field(default_factory=dict)
    """Findings of personal data by kind, in all rows that were checked."""


@dataclass
class DataReport:
    """The account of all rows: for each source, then for each split."""

    sources: list[SourceReport]
    """Every source, in the order of the config."""
    splits: dict[str, Tally]
    """Rows dealt to train, val and test, and the ones left out after that."""
    ledgers: dict[str, Ledger]
    """Lengths and truncation of each split."""
    overlaps: list[RemovedRow] = field(default_factory=list)
    """Examples of training rows that overlap with held-out or benchmark rows."""
    num_overlaps: int = 0
    """How many such rows there are."""

    def add_overlaps(self, rows: Sequence[RemovedRow]) -> None:
        """Counts training rows that overlap and keeps the first few as examples."""
        self.num_overlaps += len(rows)
        self.overlaps = [*self.overlaps, *rows][:SHOWN_EXAMPLES]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataReport":
        """Reads what `dataclasses.asdict` wrote."""
        return cls(
            sources=[
                SourceReport(**{**each, "tally": Tally.from_dict(each["tally"])})
                for each in values["sources"]
            ],
            splits={name: Tally.from_dict(each) for name, each in values["splits"].items()},
            ledgers={name: Ledger(**each) for name, each in values["ledgers"].items()},
            overlaps=[RemovedRow(**each) for each in values["overlaps"]],
            num_overlaps=values["num_overlaps"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return dataclasses.asdict(self)
