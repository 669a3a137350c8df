"""From raw rows to checked records: what every row passes before it is compared with any other."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loralab.config.data import DataConfig
from loralab.data.dedup import content_key
from loralab.data.formats.columns import explain_columns, rename_columns
from loralab.data.formats.prompt_template import PromptTemplate
from loralab.data.formats.registry import Format
from loralab.data.privacy import (
    mask_record,
    mask_strings,
    mask_text,
    quote_findings,
    quoted_kinds,
    scan_record,
)
from loralab.data.quality.judge import Judge, Removal
from loralab.data.records import Conversation, LabelledConversation, PreferencePair, Record
from loralab.data.serialization import record_to_json
from loralab.data.source import Source
from loralab.data.sources import BrokenRow, Row
from loralab.data.tally import SHOWN_EXAMPLES, RemovedRow, Tally, excerpt, excerpt_turns, shorten
from loralab.data.validity import find_fault, is_prompt_only
from loralab.errors import DataError

UNREADABLE, INVALID = "unreadable", "invalid"
"""The checks that `data.on_error` decides about."""
NO_ANSWER = "there is no assistant turn; add the answer"
BAD_ANSWER = "the answer is labelled as a bad one"
NOT_A_FIELD = (None, "source", "length", "near")
"""Values of `data.split.by` that are no field of the rows."""

LONGEST_VALUE = 1000
"""Characters of a value that rows are split by."""

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
    private_rows: int = 0
    """Rows with any finding."""
    private_examples: dict[str, list[RemovedRow]] = field(default_factory=dict)
    """The first rows with findings of each kind; what is quoted of them is masked."""


class Intake:
    """Converts, checks, judges and cleans rows of one source, one at a time."""

    def __init__(self, source: Source, form: Format | None, config: DataConfig, for_training: bool) -> None:
        """Compiles what the checks need.

        Args:
            source: Where the rows come from.
            form: Their form; None where a prompt template builds the turns, or no row can be read.
            config: The checks, what to do about personal data, and the field that the split needs.
            for_training: Whether every row must hold an answer to learn.
        """
        self.source, self.form, self.privacy = source, form, config.privacy
        self.preference, self.for_training = config.preference, for_training
        needs_field = source.part == "train" and config.split.by not in NOT_A_FIELD
        self.split_field = config.split.by if needs_field else None
        template = source.prompt_template
        texts = (template.system, template.user, template.assistant)
        self.template = PromptTemplate(*texts) if form is None and template.user is not None else None
        self.judge = Judge(config.quality)
        self.quoted_kinds = quoted_kinds(config.privacy)

    def __call__(self, rows: Sequence[RawRow]) -> IntakeResult:
        """Takes in a chunk of rows; every one of them ends in `kept` or in the tally."""
        result = IntakeResult()
        for file, row in rows:
            result.tally.rows += 1
            if isinstance(row, BrokenRow):
                result.tally.remove(UNREADABLE, self._removed(file, row, row.reason))
                continue
            try:
                self._take(file, row, result)
            except (DataError, RecursionError) as error:
                reason = "the row is nested too deeply" if isinstance(error, RecursionError) else str(error)
                result.tally.remove(INVALID, self._removed(file, row, reason))
        return result

    def _removed(self, file: str, row: Row | BrokenRow, reason: str) -> RemovedRow:
        """Describes a row that cannot be used; personal data is masked before anything is shortened."""
        shown = "" if isinstance(row, BrokenRow) else _excerpt(row, self.quoted_kinds)
        return RemovedRow(file, row.place, shorten(mask_text(reason, self.quoted_kinds)), shown)

    def _take(self, file: str, row: Row, result: IntakeResult) -> None:
        record, value = self.convert(row.fields), self._split_value(row.fields)
        checked, removal = self._check(record, (file, row.place), result)
        if removal is not None:
            shown = excerpt_turns(record.messages, self.quoted_kinds)
            reason = mask_text(removal.reason, self.quoted_kinds)
            result.tally.remove(removal.check, RemovedRow(file, row.place, reason, shown))
            return
        if self.for_training:
            checked = to_supervised(checked)
        text = record_to_json(replace(checked, unit=row.unit))
        result.kept.append(KeptRow(text, content_key(checked), file, row.line, value))

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

    def _check(
        self, record: Record, where: tuple[str, str], result: IntakeResult
    ) -> tuple[Record, Removal | None]:
        """Returns the record, cleaned, and why it is left out, if it is; `where` is its file and place."""
        if self.for_training and isinstance(record, LabelledConversation) and not record.label:
            return record, Removal("preference", BAD_ANSWER)
        removal, action = self.judge(record), self.privacy.action
        if removal is not None or action == "none":
            return record, removal
        counts = scan_record(record, self.privacy.kinds)
        if not counts:
            return record, None
        self._note_findings(record, counts, where, result)
        if action == "drop":
            found = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            return record, Removal("privacy", found)
        return (mask_record(record, self.privacy.kinds) if action == "mask" else record), None

    def _note_findings(
        self, record: Record, counts: Mapping[str, int], where: tuple[str, str], result: IntakeResult
    ) -> None:
        result.private_rows += 1
        shown = result.private_examples
        wanted = [kind for kind in counts if len(shown.setdefault(kind, [])) < SHOWN_EXAMPLES]
        quotes = quote_findings(record, self.privacy.kinds) if wanted else {}
        for kind in wanted:
            shown[kind].append(RemovedRow(*where, "", quotes[kind]))
        for kind, count in counts.items():
            result.private[kind] = result.private.get(kind, 0) + count

    def _split_value(self, fields: Mapping[str, Any]) -> str | None:
        if self.split_field is None:
            return None
        value = fields.get(self.split_field)
        if value is None:
            raise DataError(f"the field {self.split_field!r} (data.split.by) is missing")
        text = str(value)
        if not text.isprintable() or len(text) > LONGEST_VALUE:
            raise DataError(
                f"the field {self.split_field!r} (data.split.by) holds a control character, half of a "
                f"surrogate pair, or more than {LONGEST_VALUE} characters"
            )
        return text


def _excerpt(row: Row, kinds: Sequence[str]) -> str:
    try:
        # String by string: in JSON the letter of an escape such as \\n would stand before what is looked for.
        text = json.dumps(mask_strings(row.fields, kinds), ensure_ascii=True, default=str)
        # Then names of fields and numbers.
        return excerpt(mask_text(text, kinds))
    except (RecursionError, ValueError, TypeError):
        return ""


def to_supervised(record: Record) -> Conversation:
    """Returns what supervised fine-tuning learns of a record: of a pair the preferred continuation alone."""
    messages = record.messages
    if isinstance(record, PreferencePair):
        shared = (
            replace(turn, weight=0.0) if turn.role == "assistant" and turn.weight is None else turn
            for turn in record.prompt
        )
        messages = (*shared, *record.chosen)
    return Conversation(messages, record.source, record.row, record.tools, record.unit)
