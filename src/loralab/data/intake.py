"""From raw rows to checked records: what every row passes before it is compared with any other."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from loralab.config.data import DataConfig
from loralab.data.dedup import content_key
from loralab.data.formats.columns import explain_columns, rename_columns
from loralab.data.formats.detection import NUM_PROBED_ROWS, choose_format
from loralab.data.formats.prompt_template import PromptTemplate
from loralab.data.formats.registry import FORMATS, Format, check_format
from loralab.data.privacy import mask_record, scan_record
from loralab.data.quality.judge import Judge, Removal
from loralab.data.records import Conversation, LabelledConversation, PreferencePair, Record
from loralab.data.serialization import record_from_json, record_to_json
from loralab.data.source import Source, list_sources
from loralab.data.sources import BrokenRow, Row, expand_paths, is_hub, read_hub, read_rows
from loralab.data.tally import SHOWN_EXAMPLES, RemovedRow, Tally, excerpt
from loralab.data.validity import find_fault, is_prompt_only
from loralab.errors import DataError

UNREADABLE, INVALID = "unreadable", "invalid"
"""The checks that `data.on_error` decides about."""
NO_ANSWER = "there is no assistant turn; add the answer"
NOT_A_FIELD = (None, "source", "length", "near")
"""Values of `data.split.by` that are no field of the rows."""
PREFERENCE_FORMS = ("preference", "sharegpt_preference", "unpaired")

RawRow = tuple[str, Row | BrokenRow]
"""A row and the file that it stands in."""


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row that passed."""

    record: str
    """The record as JSON."""
    key: bytes
    """Hash of its content."""
    file: str
    """Where it stands."""
    row: int
    """Its place there."""
    value: str | None
    """What the field `data.split.by` holds, as text."""


@dataclass
class IntakeResult:
    """What became of a chunk of rows."""

    tally: Tally = field(default_factory=Tally)
    kept: list[KeptRow] = field(default_factory=list)
    private: dict[str, int] = field(default_factory=dict)
    """Findings of personal data by kind."""


class Intake:
    """Converts, checks, judges and cleans rows of one source, one at a time."""

    def __init__(self, source: Source, form: Format | None, config: DataConfig, for_training: bool) -> None:
        """Compiles what the checks need.

        Args:
            source: Where the rows come from.
            form: Their form; None where a prompt template builds the turns.
            config: The checks, what to do about personal data, and the field that the split needs.
            for_training: Whether every row must hold an answer to learn.
        """
        self.source, self.form, self.privacy = source, form, config.privacy
        self.preference, self.for_training = config.preference, for_training
        needs_field = source.part == "train" and config.split.by not in NOT_A_FIELD
        self.split_field = config.split.by if needs_field else None
        template = source.prompt_template
        self.template = None if form else PromptTemplate(template.system, template.user, template.assistant)
        self.judge = Judge(config.quality)

    def __call__(self, rows: Sequence[RawRow]) -> IntakeResult:
        """Takes in a chunk of rows; every one of them ends in `kept` or in the tally."""
        result = IntakeResult()
        for file, row in rows:
            result.tally.rows += 1
            if isinstance(row, BrokenRow):
                result.tally.remove(UNREADABLE, RemovedRow(file, row.place, row.reason))
                continue
            try:
                record, value = self.convert(row.fields), self._split_value(row.fields)
            except DataError as error:
                shown = excerpt(json.dumps(row.fields, ensure_ascii=True, default=str))
                result.tally.remove(INVALID, RemovedRow(file, row.place, str(error), shown))
                continue
            checked, removal = self._check(record, result.private)
            if removal is not None:
                shown = excerpt(" / ".join(message.content[:200] for message in record.messages))
                result.tally.remove(removal.check, RemovedRow(file, row.place, removal.reason, shown))
            else:
                if self.for_training:
                    checked = to_supervised(checked)
                text = record_to_json(checked)
                result.kept.append(KeptRow(text, content_key(checked), file, row.line, value))
        return result

    def convert(self, fields: dict[str, Any]) -> Record:
        """Converts one row's fields into a record that can be used.

        Raises:
            DataError: A field is missing or wrong, or the record cannot be used.
        """
        if self.template is not None:
            record: Record = self.template.render(fields)
        else:
            assert self.form is not None
            columns = self.source.columns
            try:
                record = self.form.to_record(rename_columns(fields, columns, (self.form,)))
            except DataError as error:
                raise DataError(explain_columns(str(error), columns, self.form)) from None
        if fault := find_fault(record):
            raise DataError(fault)
        if self.for_training and is_prompt_only(record):
            raise DataError(NO_ANSWER)
        return record

    def _check(self, record: Record, private: dict[str, int]) -> tuple[Record, Removal | None]:
        """Returns the record, cleaned, and why it is left out, if it is."""
        if self.for_training and isinstance(record, LabelledConversation) and not record.label:
            return record, Removal("preference", "the answer is labelled as a bad one")
        removal, action = self.judge(record), self.privacy.action
        if removal is not None or action == "off":
            return record, removal
        counts = scan_record(record, self.privacy.kinds)
        for kind, count in counts.items():
            private[kind] = private.get(kind, 0) + count
        if counts and action == "drop":
            found = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            return record, Removal("privacy", found)
        return (mask_record(record, self.privacy.kinds) if counts and action == "mask" else record), None

    def _split_value(self, fields: Mapping[str, Any]) -> str | None:
        if self.split_field is None:
            return None
        value = fields.get(self.split_field)
        if value is None:
            raise DataError(f"the field {self.split_field!r} (data.split.by) is missing")
        return str(value)


def open_source(source: Source, on_error: str = "raise") -> tuple[Format | None, Iterator[RawRow]]:
    """Finds the form of a source's rows from the first of them and returns both.

    Args:
        source: Where the rows come from.
        on_error: With `skip`, the form of most of the first rows is taken where they differ.

    Raises:
        DataError: A file cannot be read, or no single form fits.
    """
    check_format(source.form)
    rows = _raw_rows(source)
    first = list(islice(rows, NUM_PROBED_ROWS))
    whole = [row for _, row in first if isinstance(row, Row)]
    if source.prompt_template.user is not None or not whole:
        return None, chain(first, rows)
    try:
        form = choose_format(whole, source.form, source.columns)
    except DataError as error:
        common = _most_common_form(whole, source) if on_error == "skip" else None
        if common is None:
            raise DataError(f"{source.key}={source.path!r}: {error}") from None
        form = common
    return form, chain(first, rows)


def _most_common_form(rows: Sequence[Row], source: Source) -> Format | None:
    """The form of most rows, where the others are to be skipped; None where no row tells."""
    found: Counter[str] = Counter()
    for row in rows:
        with contextlib.suppress(DataError):
            found[choose_format([row], source.form, source.columns).name] += 1
    return FORMATS[found.most_common(1)[0][0]] if found else None


def to_supervised(record: Record) -> Conversation:
    """Returns what supervised fine-tuning learns of a record: of a pair the preferred continuation alone."""
    messages = record.messages
    if isinstance(record, PreferencePair):
        shared = (
            replace(turn, weight=0.0) if turn.role == "assistant" and turn.weight is None else turn
            for turn in record.prompt
        )
        messages = (*shared, *record.chosen)
    return Conversation(messages, record.source, record.row, record.tools)


def check_purpose(source: Source, form: Format | None, preference: str | None) -> None:
    """Refuses rows of a form that has no answers to learn.

    Raises:
        DataError: The rows are prompts alone, or preferences without `data.preference`.
    """
    if form is None:
        return
    if form.name == "prompts":
        raise DataError(
            f"{source.key}={source.path!r}: no assistant turns: nothing to train on. Give rows with answers, "
            "or map the answers with data.columns.response=<field>."
        )
    if form.name in PREFERENCE_FORMS and preference is None:
        raise DataError(
            f"{source.key}={source.path!r}: the rows are preferences ({form.expects}), and objective=sft "
            "learns answers. Learn the preferred ones with data.preference=chosen."
        )


def refuse_faults(source: Source, tally: Tally, on_error: str) -> None:
    """Refuses a source with rows that cannot be used, unless they are to be skipped.

    Args:
        source: Where the rows come from.
        tally: What became of them.
        on_error: `data.on_error`.

    Raises:
        DataError: There are such rows; all in one message.
    """
    faults = [tally.removed[check] for check in (UNREADABLE, INVALID) if check in tally.removed]
    count = sum(each.count for each in faults)
    if not count or (on_error == "skip" and tally.kept):
        return
    rows = sorted((row for each in faults for row in each.examples), key=lambda row: _number(row.place))
    if count == tally.rows and all(row.reason == NO_ANSWER for row in rows):
        raise DataError(
            f"{source.key}={source.path!r}: no assistant turns: nothing to train on. Give rows with answers, "
            "or map the answers with data.columns.response=<field>."
        )
    if count == 1:
        raise DataError(f"{source.key}={rows[0].file!r} {rows[0].place}: {rows[0].reason}")
    shown = "; ".join(f"{row.place}: {row.reason}" for row in rows[:SHOWN_EXAMPLES])
    rest = f"; and {count - len(rows[:SHOWN_EXAMPLES])} more" if count > SHOWN_EXAMPLES else ""
    raise DataError(
        f"{source.key}={rows[0].file!r}: {count} of {tally.rows} rows cannot be used: {shown}{rest}"
    )


def load_records(config: DataConfig, *, for_training: bool = True) -> list[Record]:
    """Reads, converts and checks all rows of a config into memory: for notebooks and small files.

    Args:
        config: The `data` group.
        for_training: Whether every row must hold an answer to learn.

    Raises:
        DataError: A file or its rows cannot be used.
    """
    records: list[Record] = []
    for source in list_sources(config):
        form, rows = open_source(source, config.on_error)
        if for_training:
            check_purpose(source, form, config.preference)
        result = Intake(source, form, config, for_training)(list(rows))
        refuse_faults(source, result.tally, config.on_error)
        records += [record_from_json(row.record, row.file, row.row) for row in result.kept]
    return records


def _number(place: str) -> int:
    return int(place.rpartition(" ")[2])


def _raw_rows(source: Source) -> Iterator[RawRow]:
    if is_hub(source.path):
        name = source.path.partition(":")[2]
        for row in read_hub(name, source.subset, source.split, source.revision, source.key):
            yield source.path, row
        return
    for path in source_files(source):
        for row in read_rows(path, source.key, source.encoding):
            yield str(path), row


def source_files(source: Source) -> list[Path]:
    """The files of a source; none for a dataset of the Hub."""
    return [] if is_hub(source.path) else expand_paths(source.path, source.key)
