"""Rows of any form written as rows of another, and proved to read back the same."""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from typing import Any

from loralab.cli.chunks import work_through
from loralab.cli.gathering import SKIP_HINT, make_intake, nothing_left, open_all
from loralab.cli.request import Request
from loralab.data.formats.registry import Format
from loralab.data.intake import INVALID, UNREADABLE, Intake, RawRow
from loralab.data.privacy import mask_text
from loralab.data.serialization import record_from_json, record_to_json
from loralab.data.sources import Row, read_rows
from loralab.data.tally import RemovedRow, Tally, excerpt_turns
from loralab.data.writing import BINARY_KINDS, RowWriter, UnwritableError, kind_of
from loralab.errors import DataError

UNWRITABLE = "unwritable"
"""The check that a row fails when the form or the kind of file has no place for a part of it."""
TURN_FIELDS = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
"""Fields that hold a text or a list of turns, and the role of the text."""
FINGERPRINT_BYTES = 16


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row in its new form."""

    fields: dict[str, Any]
    """What is written."""
    fingerprint: bytes
    """Hash of its record, weights included."""
    file: str
    """Where the row stood."""
    place: str
    """Its place there, as messages name it."""
    shown: str
    """The beginning of what it says."""
    kinds: Sequence[str] = ()
    """The kinds of personal data in messages about it that are masked."""


@dataclass
class ConvertedChunk:
    """What became of a chunk of rows."""

    tally: Tally = field(default_factory=Tally)
    rows: list[NewRow] = field(default_factory=list)


class Converter:
    """Turns rows of one source into rows of a form."""

    def __init__(self, intake: Intake, form: Format, as_turns: bool) -> None:
        """Takes what reads the rows and the form to write.

        Args:
            intake: Reads and checks the rows.
            form: The form to write.
            as_turns: Write plain prompts and answers as lists of one turn too.
        """
        self.intake, self.form, self.as_turns = intake, form, as_turns

    def __call__(self, rows: Sequence[RawRow]) -> ConvertedChunk:
        """Converts a chunk; every row of it ends in `rows` or in the tally."""
        chunk = ConvertedChunk()
        for raw in rows:
            taken = self.intake([raw])
            chunk.tally.add(taken.tally)
            for kept in taken.kept:
                record = record_from_json(kept.record, kept.file, kept.row)
                # The intake has looked at this one row: where it found nothing there is nothing to mask.
                kinds = self.intake.quoted_kinds if taken.private_rows else ()
                shown = excerpt_turns(record.messages, kinds)
                place = raw[1].place
                try:
                    fields = self.form.from_record(record)
                except DataError as error:
                    reason = mask_text(str(error), kinds)
                    chunk.tally.remove(UNWRITABLE, RemovedRow(kept.file, place, reason, shown))
                    continue
                if self.as_turns:
                    fields |= {
                        name: [{"role": role, "content": fields[name]}]
                        for name, role in TURN_FIELDS.items()
                        if isinstance(fields.get(name), str)
                    }
                chunk.rows.append(NewRow(fields, fingerprint(kept.record), kept.file, place, shown, kinds))
        return chunk


def convert(request: Request, form: Format, target: Path, overwrite: bool) -> list[Tally]:
    """Writes the rows of all sources to a file, in one form, and returns the account of each source.

    Raises:
        DataError: A row cannot be used and `data.on_error` is `raise`, the file cannot be written, or a row
            would not read back as it is.
    """
    try:
        return _convert(request, form, target, overwrite, as_turns=False)
    except _MixedCellsError:
        return _convert(request, form, target, overwrite, as_turns=True)


def _convert(request: Request, form: Format, target: Path, overwrite: bool, as_turns: bool) -> list[Tally]:
    config, tallies = request.config, []
    is_table = kind_of(target)[0] in BINARY_KINDS
    with RowWriter(target, overwrite) as writer:
        written = _Written()
        for each in open_all(request):
            tally = Tally()
            converter = Converter(make_intake(each, config, must_answer=False), form, as_turns)
            for chunk in work_through(converter, each.rows, config.num_workers):
                tally.add(chunk.tally)
                for row in chunk.rows:
                    _write(writer, row, tally, written)
                _refuse_first(tally, config.on_error)
            tallies.append(tally)
        if not writer.num_rows:
            raise nothing_left(tallies)
        if is_table and not as_turns and written.has_mixed_cells:
            raise _MixedCellsError
        _check_written(writer.finish(), target, form, written)
    return tallies


class _MixedCellsError(Exception):
    """A column would hold text in some rows and turns in others, which are text as well when read back."""


def fingerprint(record: str) -> bytes:
    """Hashes what a record, given as JSON, says, whatever the order of the keys of its objects."""
    parts = json.loads(record)
    parts.pop("unit", None)
    ordered = json.dumps(parts, sort_keys=True)
    return blake2b(ordered.encode(), digest_size=FINGERPRINT_BYTES).digest()


class _Written:
    """Fingerprint and place of every row written, in some 30 bytes each."""

    def __init__(self) -> None:
        self.fingerprints = bytearray()
        self.files: dict[str, int] = {}
        self.file_numbers, self.places = array("i"), array("q")
        self.units: dict[int, str] = {}
        self.cells: dict[str, set[bool]] = {}

    def add(self, row: NewRow) -> None:
        """Remembers what was written, to compare it with what is read back."""
        unit, _, number = row.place.partition(" ")
        file = self.files.setdefault(row.file, len(self.files))
        self.units.setdefault(file, unit)
        self.fingerprints += row.fingerprint
        self.file_numbers.append(file)
        self.places.append(int(number))
        for name in TURN_FIELDS.keys() & row.fields.keys():
            self.cells.setdefault(name, set()).add(isinstance(row.fields[name], str))

    @property
    def has_mixed_cells(self) -> bool:
        """Whether a field holds text in some rows and turns in others."""
        return any(len(kinds) > 1 for kinds in self.cells.values())

    def place(self, number: int) -> str:
        file = self.file_numbers[number]
        return f"{list(self.files)[file]} {self.units[file]} {self.places[number]}"

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self.fingerprints), FINGERPRINT_BYTES):
            yield bytes(self.fingerprints[start : start + FINGERPRINT_BYTES])


def _write(writer: RowWriter, row: NewRow, tally: Tally, written: _Written) -> None:
    try:
        writer.write(row.fields)
    except UnwritableError:
        raise
    except DataError as error:
        reason = mask_text(str(error), row.kinds)
        tally.remove(UNWRITABLE, RemovedRow(row.file, row.place, reason, row.shown))
        return
    written.add(row)


def _refuse_first(tally: Tally, on_error: str) -> None:
    faults = [tally.removed[check] for check in (UNREADABLE, INVALID, UNWRITABLE) if check in tally.removed]
    if faults and on_error == "raise":
        row = min((removals.examples[0] for removals in faults), key=lambda row: int(row.place.split()[1]))
        raise DataError(f"{row.file} {row.place}: {row.reason} ({SKIP_HINT})")


def _check_written(file: Path, target: Path, form: Format, written: _Written) -> None:
    expected = iter(written)
    for number, (row, mark) in enumerate(zip_longest(read_rows(file, "OUT", "utf-8"), expected)):
        try:
            if isinstance(row, Row) and fingerprint(record_to_json(form.to_record(row.fields))) == mark:
                continue
            reason = "it would read back as another row"
        except DataError as error:
            reason = f"it would not read back: {error}"
        place = written.place(number) if mark is not None else f"row {number + 1}"
        kind = kind_of(target)[0]
        raise DataError(
            f"{place}: {kind} cannot hold this row as {form.name}: {reason}. Write .jsonl, or choose another "
            "form with --to."
        )
