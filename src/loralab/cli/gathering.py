"""Rows of several sources, converted and checked one by one, as every data command needs them."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loralab.cli.chunks import work_through
from loralab.cli.request import Request
from loralab.config.data import DataConfig
from loralab.data.corpus import Corpus, CorpusWriter
from loralab.data.dedup import ExactDuplicates
from loralab.data.formats.columns import rename_columns
from loralab.data.formats.detection import NUM_PROBED_ROWS, explain_detection
from loralab.data.formats.registry import FORMATS, Format
from loralab.data.intake import INVALID, UNREADABLE, Intake, IntakeResult, RawRow
from loralab.data.opening import PREFERENCE_FORMS, open_source
from loralab.data.privacy import quoted_kinds
from loralab.data.serialization import record_from_json
from loralab.data.source import Source
from loralab.data.sources import Row, json_type
from loralab.data.tally import SHOWN_EXAMPLES, RemovedRow, Tally, describe_removed
from loralab.errors import DataError

DUPLICATE, NEAR_DUPLICATE = "duplicate", "near_duplicate"
FALLBACK = "openai"
"""The form by which rows are refused where none can be read."""
SKIP_HINT = "leave such rows out with on_error=skip"


@dataclass
class Opened:
    """A source whose form is known."""

    source: Source
    form: Format | None
    """None where a prompt template builds the turns."""
    reason: str
    """Why the rows are taken to have this form."""
    rows: Iterator[RawRow]
    """Every row, to be read once."""

    @property
    def form_name(self) -> str:
        """The form as tables name it."""
        return self.form.name if self.form else "prompt_template"


@dataclass
class FieldCount:
    """A field of the raw rows."""

    rows: int = 0
    """Rows that have it."""
    types: Counter[str] = field(default_factory=Counter)
    """What it holds, in the words of JSON."""


@dataclass
class SourceAccount:
    """What became of the rows of one source."""

    tally: Tally = field(default_factory=Tally)
    """Rows read, and the ones left out by each check."""
    private: Counter[str] = field(default_factory=Counter)
    """Findings of personal data by kind."""
    private_rows: int = 0
    """Rows with any finding."""
    private_examples: dict[str, list[RemovedRow]] = field(default_factory=dict)
    """The first rows with findings of each kind; what is quoted of them is masked."""
    fields: dict[str, FieldCount] = field(default_factory=dict)
    """The fields of the raw rows."""

    def add(self, result: IntakeResult) -> None:
        """Adds what became of a chunk of rows."""
        self.tally.add(result.tally)
        self.private.update(result.private)
        self.private_rows += result.private_rows
        for kind, rows in result.private_examples.items():
            ours = self.private_examples.get(kind, [])
            self.private_examples[kind] = [*ours, *rows][:SHOWN_EXAMPLES]


@dataclass
class Gathered:
    """Every row that passed, and what became of the others."""

    corpus: Corpus
    """The rows that passed all checks but the one for near duplicates."""
    alive: NDArray[np.int64]
    """The numbers of the rows that stay."""
    accounts: list[SourceAccount]
    """What became of the rows of each source."""

    @property
    def tallies(self) -> list[Tally]:
        """The count of each source."""
        return [account.tally for account in self.accounts]


def open_all(request: Request, on_error: str | None = None) -> list[Opened]:
    """Opens every source and finds its form.

    Args:
        request: The sources and the options.
        on_error: With `skip`, the form of most of the first rows is taken; None follows the options.

    Raises:
        DataError: A file cannot be read, or no single form fits.
    """
    config = request.config
    on_error = config.on_error if on_error is None else on_error
    return [open_one(source, config.max_examples, on_error) for source in request.sources]


def open_one(source: Source, max_rows: int | None, on_error: str = "raise") -> Opened:
    """Opens one source and says why its rows have their form.

    Raises:
        DataError: A file cannot be read, or no single form fits.
    """
    form, rows = open_source(source, on_error, max_rows)
    first = list(islice(rows, NUM_PROBED_ROWS))
    whole = [row for _, row in first if isinstance(row, Row)]
    if source.prompt_template.user is not None:
        return Opened(source, None, "prompt_template builds the turns", islice(chain(first, rows), max_rows))
    if form is None:
        form = FORMATS.get(source.form, FORMATS[FALLBACK])
        reason = "no row can be read"
    elif source.form == "auto":
        # By the rows of that form alone, where others are to be told of or left out.
        fitting = [row for row in whole if _fits(row, form, source)]
        form, reason = _detect(source, fitting) if fitting else (form, form.name)
    else:
        reason = f"{form.name}: given with format={form.name}"
    return Opened(source, form, reason, islice(chain(first, rows), max_rows))


def _fits(row: Row, form: Format, source: Source) -> bool:
    try:
        return form.matches(rename_columns(row.fields, source.columns, (form,)))
    except DataError:
        return False


def _detect(source: Source, whole: Sequence[Row]) -> tuple[Format, str]:
    try:
        detection = explain_detection(whole, source.columns)
    except DataError as error:
        raise DataError(f"{source.key}={source.path!r}: {error}") from None
    return FORMATS[detection.name], detection.reason


def make_intake(opened: Opened, config: DataConfig, must_answer: bool) -> Intake:
    """Prepares the checks of a source's rows.

    Args:
        opened: The source.
        config: The checks.
        must_answer: Refuse rows without an answer, where the form has answers.
    """
    if opened.form is None:
        has_answers = opened.source.prompt_template.assistant is not None
    else:
        has_answers = opened.form.name not in (*PREFERENCE_FORMS, "prompts")
    return Intake(opened.source, opened.form, config, for_training=must_answer and has_answers)


def gather(opened: Sequence[Opened], config: DataConfig, folder: Path, must_answer: bool) -> Gathered:
    """Takes in the rows of all sources and marks the duplicates that the options ask to leave out.

    Args:
        opened: The sources.
        config: The checks.
        folder: Where the working store may lie.
        must_answer: Refuse rows without an answer, where the form has answers.
    """
    writer, duplicates = CorpusWriter(folder / "corpus.arrow"), ExactDuplicates()
    numbers = array("q")  # of the kept rows, for each row that was compared
    accounts, num_kept = [SourceAccount() for _ in opened], 0
    kinds = quoted_kinds(config.privacy)
    for number, each in enumerate(opened):
        account = accounts[number]
        rows = _watch(each.rows, account.fields)
        for result in work_through(make_intake(each, config, must_answer), rows, config.num_workers):
            account.add(result)
            for row in result.kept:
                first = duplicates.add(row.key) if config.dedup.exact else None
                if first is not None:
                    numbers.append(numbers[first])
                    reason = f"the same as {writer.place(numbers[first])}"
                    record = record_from_json(row.record, row.file, row.row)
                    account.tally.remove(DUPLICATE, describe_removed(record, reason, kinds))
                    continue
                numbers.append(num_kept)
                num_kept += 1
                writer.append(row.record, row.key, number, (row.file, row.row), row.value)
    corpus = writer.close()
    alive = np.arange(len(corpus), dtype=np.int64)
    if config.dedup.near != "none":
        alive = _drop_near_duplicates(corpus, config, accounts)
    return Gathered(corpus, alive, accounts)


def refuse_faults(tallies: Iterable[Tally], on_error: str) -> None:
    """Raises the faults of rows, all in one message, unless they are to be skipped.

    Raises:
        DataError: Rows cannot be read or converted, and `on_error` is `raise`.
    """
    faulty = [
        tally.removed[check] for tally in tallies for check in (UNREADABLE, INVALID) if check in tally.removed
    ]
    count = sum(removals.count for removals in faulty)
    if not count or on_error == "skip":
        return
    found = sorted((row for removals in faulty for row in removals.examples), key=lambda row: row.order)
    rows = found[:SHOWN_EXAMPLES]
    shown = [f"{row.file} {row.place}: {row.reason}" for row in rows]
    if count > len(shown):
        shown.append(f"and {count - len(shown)} more")
    head = "a row" if count == 1 else f"{count:,} rows"
    raise DataError("\n  ".join([f"{head} cannot be used; {SKIP_HINT}:", *shown]))


def nothing_left(tallies: Iterable[Tally]) -> DataError:
    """Returns the error for sources of which every row is left out."""
    counts: Counter[str] = Counter()
    for tally in tallies:
        counts.update({check: removals.count for check, removals in tally.removed.items()})
    listed = ", ".join(f"{count:,} {check}" for check, count in counts.items())
    return DataError(f"no row is left to write; left out: {listed}.")


def _watch(rows: Iterator[RawRow], seen: dict[str, FieldCount]) -> Iterator[RawRow]:
    """Counts the fields of rows on their way."""
    for file, row in rows:
        if isinstance(row, Row):
            for name, value in row.fields.items():
                count = seen.setdefault(name, FieldCount())
                count.rows += 1
                count.types[json_type(value)] += 1
        yield file, row


def _drop_near_duplicates(
    corpus: Corpus, config: DataConfig, accounts: Sequence[SourceAccount]
) -> NDArray[np.int64]:
    from loralab.data.cleaning import find_near_duplicates  # here, because it imports torch

    numbers = np.arange(len(corpus), dtype=np.int64)
    found = find_near_duplicates(corpus, numbers, config.dedup)
    for number, first in found.items():
        record, other = corpus.records(np.array([number, first]))
        reason = f"nearly the same as {other.source} {other.place}"
        removed = describe_removed(record, reason, quoted_kinds(config.privacy))
        accounts[corpus.sources[number]].tally.remove(NEAR_DUPLICATE, removed)
    return numbers[~np.isin(numbers, np.fromiter(found, np.int64, len(found)))]
