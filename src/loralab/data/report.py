"""What the data of a run is and what became of its rows, as files and pages show it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loralab.data.gate import Ledger
from loralab.data.privacy import mask_text
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
    """One source or benchmark and what became of its rows."""

    name: str
    """Name in tables and metrics; of a benchmark its path."""
    part: str
    """train, val, test or benchmark."""
    form: str
    """The form of its rows."""
    tally: Tally
    """Rows read, and the ones left out by each check before the split."""
    private: dict[str, int] = field(default_factory=dict)
    """Findings of personal data by kind, in all rows that were checked."""
    private_rows: int = 0
    """Rows with any such finding."""
    private_examples: dict[str, list[RemovedRow]] = field(default_factory=dict)
    """The first rows with findings of each kind; what is quoted of them is masked."""
    reason: str = ""
    """Why its rows are taken to have their form."""
    limit: int | None = None
    """`data.max_examples` where it ended the reading; None where every row was read."""
    splits: dict[str, Tally] = field(default_factory=dict)
    """Its rows dealt to each split, and the ones left out after that."""
    ledger: Ledger | None = None
    """Lengths and truncation of its rows in all splits; None where none was rendered."""

    @property
    def later(self) -> Tally:
        """The rows dealt to any split, and the ones left out after that."""
        total = Tally()
        for tally in self.splits.values():
            total.add(tally)
        return total

    def add_findings(
        self, counts: Mapping[str, int], num_rows: int, examples: Mapping[str, Sequence[RemovedRow]]
    ) -> None:
        """Adds the findings of personal data of another part of the rows.

        Args:
            counts: Findings by kind.
            num_rows: Rows with any of them.
            examples: The first of those rows, by kind.
        """
        self.private_rows += num_rows
        for kind, count in counts.items():
            self.private[kind] = self.private.get(kind, 0) + count
            ours = self.private_examples.get(kind, [])
            self.private_examples[kind] = [*ours, *examples.get(kind, ())][:SHOWN_EXAMPLES]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SourceReport":
        """Reads what `dataclasses.asdict` wrote."""
        return cls(**{
            **values,
            "tally": Tally.from_dict(values["tally"]),
            "private_examples": {
                kind: [RemovedRow(**row) for row in rows] for kind, rows in values["private_examples"].items()
            },
            "splits": {name: Tally.from_dict(each) for name, each in values["splits"].items()},
            "ledger": Ledger(**values["ledger"]) if values["ledger"] is not None else None,
        })  # fmt: skip


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
    benchmarks: list[SourceReport] = field(default_factory=list)
    """The files of `data.contamination.benchmarks`, whose rows are compared and never trained on."""

    def add_overlaps(self, rows: Sequence[RemovedRow]) -> None:
        """Counts training rows that overlap and keeps the first few as examples."""
        self.num_overlaps += len(rows)
        self.overlaps = [*self.overlaps, *rows][:SHOWN_EXAMPLES]

    def mask_quotes(self, kinds: Sequence[str]) -> None:
        """Masks personal data in what the report quotes of rows.

        Raises:
            ConfigError: A kind is unknown.
        """
        read = (*self.sources, *self.benchmarks)
        after = [tally for source in read for tally in source.splits.values()]
        for tally in (*(source.tally for source in read), *after, *self.splits.values()):
            for removals in tally.removed.values():
                removals.examples = [_masked(row, kinds) for row in removals.examples]
        self.overlaps = [_masked(row, kinds) for row in self.overlaps]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataReport":
        """Reads what `to_dict` returned."""
        return cls(
            sources=[SourceReport.from_dict(each) for each in values["sources"]],
            splits={name: Tally.from_dict(each) for name, each in values["splits"].items()},
            ledgers={name: Ledger(**each) for name, each in values["ledgers"].items()},
            overlaps=[RemovedRow(**each) for each in values["overlaps"]],
            num_overlaps=values["num_overlaps"],
            benchmarks=[SourceReport.from_dict(each) for each in values["benchmarks"]],
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values that `from_dict` reads."""
        return dataclasses.asdict(self)

    def to_account(self) -> dict[str, Any]:
        """Returns plain values for `data.json`: each fact once, the rows left out under their source."""
        values = self.to_dict()
        values["splits"] = values.pop("ledgers")
        values["removed_after_split"] = {
            name: {check: removals.count for check, removals in tally.removed.items()}
            for name, tally in self.splits.items()
        }
        return values


def _masked(row: RemovedRow, kinds: Sequence[str]) -> RemovedRow:
    return dataclasses.replace(
        row, reason=mask_text(row.reason, kinds), excerpt=mask_text(row.excerpt, kinds)
    )
