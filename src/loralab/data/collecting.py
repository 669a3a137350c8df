"""Reads every source once, cleans across sources, and says which rows go where."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loralab.config.data import DataConfig
from loralab.data.benchmarks import BENCHMARK, benchmark_sources, read_benchmark
from loralab.data.cleaning import build_overlap_index, find_near_duplicates, removed_row
from loralab.data.contamination import OverlapIndex
from loralab.data.corpus import Corpus, CorpusWriter
from loralab.data.dedup import ExactDuplicates
from loralab.data.holdout import hold_out
from loralab.data.intake import Intake
from loralab.data.opening import check_purpose, explain_form, first_rows, open_source, refuse_faults
from loralab.data.report import SourceReport
from loralab.data.serialization import record_from_json
from loralab.data.source import PARTS, Source
from loralab.data.tally import RemovedRow, Tally, excerpt_turns
from loralab.data.workers import chunked, map_chunks
from loralab.errors import DataError

ROWS_PER_CHUNK = 256


@dataclass
class Collected:
    """The rows of a run after everything but rendering."""

    corpus: Corpus
    """Every row that passed the checks of single rows."""
    parts: dict[str, NDArray[np.int64]]
    """The numbers of the rows of train, val and test."""
    reports: list[SourceReport]
    """What became of the rows of each source."""
    splits: dict[str, Tally]
    """Rows dealt to each part, and the ones left out after that."""
    overlap_index: OverlapIndex | None = None
    """The rows that must not be trained on; None where nobody asks."""
    benchmarks: list[SourceReport] = field(default_factory=list)
    """What was read of each benchmark; none where nobody asks."""


class SeenRows:
    """Finds the kept row that says the same as another."""

    def __init__(self) -> None:
        """Starts with no rows."""
        self._duplicates, self._numbers = ExactDuplicates(), array("q")

    def find(self, key: bytes, number: int) -> int | None:
        """Returns the number of the kept row with this content, or keeps the row under its own number."""
        first = self._duplicates.add(key)
        self._numbers.append(number)
        return None if first is None else self._numbers[first]


def collect(sources: Sequence[Source], config: DataConfig, seed: int, folder: Path) -> Collected:
    """Reads all sources, leaves out faulty and duplicate rows, and splits.

    Held-out files are read first, so that of a duplicate the held-out row stays.

    Args:
        sources: What to read.
        config: Which checks to make and how to split.
        seed: Seed of the split.
        folder: Where the working store may lie.

    Raises:
        DataError: A file or its rows cannot be used.
    """
    writer, seen = CorpusWriter(folder / "corpus.arrow"), SeenRows()
    reports: dict[int, SourceReport] = {}
    for part in reversed(PARTS):
        for number, source in enumerate(sources):
            if source.part == part:
                reports[number] = _read(source, number, config, writer, seen)
    corpus = writer.close()
    ordered = [reports[number] for number in range(len(sources))]
    alive = np.arange(len(corpus), dtype=np.int64)
    if config.dedup.near != "none":
        alive = _drop_near_duplicates(corpus, alive, config, ordered)
    part_of = np.array([PARTS.index(source.part) for source in sources])
    own = part_of[corpus.sources[alive]] if len(alive) else alive
    given = {part: alive[own == place] for place, part in enumerate(PARTS)}
    for source, report in zip(sources, ordered, strict=True):
        if not report.tally.kept:
            where = f"{source.key}={source.path!r}"
            raise DataError(f"{where}: {_explain_nothing_left(source.part, report.tally)}")
    try:
        parts = hold_out(corpus, given, config, [source.name for source in sources], seed)
    except DataError as error:
        raise DataError(f"{error}{_explain_losses(ordered)}") from None
    accounts = [(each, SourceReport(each.name, BENCHMARK, "", Tally())) for each in benchmark_sources(config)]
    benchmarks = {source.name: read_benchmark(source, account, config) for source, account in accounts}
    held_out = {part: parts[part] for part in ("test", "val")}
    index = build_overlap_index(corpus, held_out, benchmarks, config)
    tallies = {part: Tally(len(rows)) for part, rows in parts.items()}
    read = [account for _, account in accounts] if index is not None else []
    return Collected(corpus, parts, ordered, tallies, index, read)


def _read(
    source: Source, number: int, config: DataConfig, writer: CorpusWriter, seen: SeenRows
) -> SourceReport:
    limit = first_rows(source, config)
    form, rows = open_source(source, config.on_error, limit)
    check_purpose(source, form, config.preference)
    name, reason, rows = explain_form(source, form, rows)
    intake = Intake(source, form, config, for_training=True)
    report = SourceReport(source.name, source.part, name, Tally(), reason=reason)
    for result in map_chunks(intake, chunked(rows, ROWS_PER_CHUNK), config.num_workers):
        report.tally.add(result.tally)
        report.add_findings(result.private, result.private_rows, result.private_examples)
        for row in result.kept:
            first = seen.find(row.key, len(writer)) if config.dedup.exact else None
            if first is not None:
                reason = f"the same as {writer.place(first)}"
                record = record_from_json(row.record, row.file, row.row)
                shown = excerpt_turns(record.messages)
                report.tally.remove("duplicate", RemovedRow(row.file, record.place, reason, shown))
                continue
            writer.append(row.record, row.key, number, (row.file, row.row), row.value)
    refuse_faults(source, report.tally, config.on_error)
    # Whether there are more rows is not looked at: the next one could stop a run that does not need it.
    report.limit = limit if report.tally.rows == limit else None
    return report


def _drop_near_duplicates(
    corpus: Corpus, alive: NDArray[np.int64], config: DataConfig, reports: Sequence[SourceReport]
) -> NDArray[np.int64]:
    found = find_near_duplicates(corpus, alive, config.dedup)
    for number, first in found.items():
        tally = reports[corpus.sources[number]].tally
        reason = f"nearly the same as {corpus.place(first)}"
        tally.remove("near_duplicate", removed_row(corpus, number, reason))
    return alive[~np.isin(alive, np.fromiter(found, np.int64, len(found)))]


def _explain_nothing_left(part: str, total: Tally) -> str:
    word = {"train": "training", "val": "validation"}.get(part, part)
    return (
        f"no {word} rows are left: of {total.rows}, {total.num_removed} were left out "
        f"({', '.join(total.removed)}). See data.dedup, data.quality and data.privacy, or add rows."
    )


def _explain_losses(reports: Sequence[SourceReport]) -> str:
    total = Tally()
    for report in reports:
        total.add(report.tally)
    return f" (of {total.rows} rows, left out: {total.describe()})" if total.num_removed else ""
