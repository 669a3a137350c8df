"""The rows of benchmarks, which are compared with the training rows and never trained on."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

from loralab.config.data import (
    BenchmarkConfig,
    ColumnsConfig,
    DataConfig,
    PrivacyConfig,
    PromptTemplateConfig,
    QualityConfig,
)
from loralab.data.formats.registry import Format
from loralab.data.intake import Intake, RawRow
from loralab.data.opening import MisfitError, explain_form, open_source, refuse_faults
from loralab.data.records import Conversation, Message, Record
from loralab.data.report import SourceReport
from loralab.data.serialization import record_from_json
from loralab.data.source import Source, mapped_columns
from loralab.data.sources import is_hub
from loralab.data.workers import chunked, map_chunks
from loralab.errors import DataError

ROWS_PER_CHUNK = 256
BENCHMARK = "benchmark"
"""What the report of a benchmark names in place of a part."""
KEY = "data.contamination.benchmarks"


def benchmark_sources(config: DataConfig) -> list[Source]:
    """Returns the benchmarks as sources to read, each under a name of its own."""
    sources: list[Source] = []
    seen: Counter[str] = Counter()
    for entry in config.contamination.benchmarks:
        given = entry if isinstance(entry, BenchmarkConfig) else BenchmarkConfig(path=entry)
        name = _name_of(given)
        seen[name] += 1
        sources.append(
            Source(
                name=f"{name} ({seen[name]})" if seen[name] > 1 else name,
                part="test",
                key=KEY,
                path=given.path,
                form=given.format,
                columns=mapped_columns(given.columns or ColumnsConfig()),
                prompt_template=PromptTemplateConfig(),
                encoding=given.encoding,
                subset=given.subset,
                split=given.split,
                revision=given.revision,
            )
        )
    return sources


def read_benchmark(source: Source, account: SourceReport, config: DataConfig) -> Iterator[Record]:
    """Yields the rows of a benchmark; where no form fits them, all of a row's text counts.

    Args:
        source: What to read.
        account: Is given what became of its rows on the way.
        config: How to treat faulty rows, and how many processes to use.

    Raises:
        DataError: A file or some of its rows cannot be read, unless they are to be skipped.
    """
    form, rows = _open(source, config.on_error)
    account.form, account.reason, rows = explain_form(source, form, rows)
    # Whatever the benchmark asks must not be trained on, so nothing but what cannot be read is left out.
    as_it_is = DataConfig(
        quality=QualityConfig(min_chars=None, role_order=False, max_garble=None),
        privacy=PrivacyConfig(action="none"),
    )
    intake, tally = Intake(source, form, as_it_is, for_training=False), account.tally
    for result in map_chunks(intake, chunked(rows, ROWS_PER_CHUNK), config.num_workers):
        tally.add(result.tally)
        yield from (record_from_json(row.record, row.file, row.row) for row in result.kept)
    refuse_faults(source, tally, config.on_error)
    if not tally.kept:
        raise DataError(f"{KEY}={source.path!r}: no row to compare with; give another file.")


def all_text(fields: dict[str, Any]) -> Record:
    """Joins every text of a row, however deep, to one document.

    Raises:
        DataError: The row holds no text.
    """
    text = "\n".join(_texts(fields))
    if not text.strip():
        raise DataError("no field of the row holds text to compare with")
    return Conversation((Message("text", text),))


def _open(source: Source, on_error: str) -> tuple[Format | None, Iterator[RawRow]]:
    try:
        return open_source(source, on_error)
    except MisfitError:
        if source.form != "auto" or source.columns:
            raise
        # Rows of a given form are not looked into when they are opened.
        return _ALL_TEXT, open_source(dataclasses.replace(source, form="text"), on_error)[1]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _fits_any_row(fields: dict[str, Any]) -> bool:
    return True


def _cannot_write(record: Record) -> dict[str, Any]:
    raise DataError("a row of any text cannot be written back")


_ALL_TEXT = Format(
    name="any text",
    expects="any field with text",
    evidence="no form fits, so all text of a row counts",
    matches=_fits_any_row,
    to_record=all_text,
    from_record=_cannot_write,
    columns={},
)
"""The form of benchmark rows that have no other."""


def _name_of(given: BenchmarkConfig) -> str:
    path = given.path if isinstance(given.path, str) else ", ".join(map(str, given.path))
    return " ".join(filter(None, (path, given.subset, given.split))) if is_hub(path) else path
