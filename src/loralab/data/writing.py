"""From rows to a file: JSON, JSON lines, CSV, TSV, Parquet or Arrow, by the extension of its name."""

import contextlib
import csv
import json
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import pyarrow as pa

from loralab.data.sources import json_type
from loralab.data.table_types import NULL, ColumnType, arrow_type, to_cell, widen
from loralab.errors import DataError, did_you_mean

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""The codec of each extension that may follow that of a text kind."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}
BINARY_KINDS = (".parquet", ".arrow")
KINDS = (".json", ".jsonl", ".ndjson", *DELIMITERS, *BINARY_KINDS)
"""Extensions that rows can be written to."""
TABLE_KINDS = (*DELIMITERS, *BINARY_KINDS)
"""Kinds whose rows all have the same columns."""
ROWS_PER_BATCH = 1000

Fields = Mapping[str, Any]


class UnwritableError(DataError):
    """The file itself cannot be written: no row of it can."""


class _Sink(Protocol):
    def write(self, fields: Fields) -> None:
        """Takes one row."""

    def finish(self) -> None:
        """Writes what is left."""


def kind_of(path: Path) -> tuple[str, str | None]:
    """Returns the extension that says how rows are written, and the codec.

    Raises:
        DataError: The extension is unknown.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    codec = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    kind = (suffixes[-2] if len(suffixes) > 1 else "") if codec else (suffixes[-1] if suffixes else "")
    if kind not in KINDS:
        what = f"the extension {kind!r} is unknown" if kind else "the name has no extension of a kind of file"
        raise DataError(f"{str(path)!r}: {what}.{did_you_mean(kind, KINDS)} Allowed: {_allowed()}.")
    if codec and kind in BINARY_KINDS:
        raise DataError(f"{str(path)!r}: {kind} is not compressed as a whole. Use {kind} alone.")
    return kind, codec


def check_target(path: Path, overwrite: bool) -> None:
    """Refuses a file that cannot be written or must not be replaced, before any row is read.

    Raises:
        DataError: The kind is unknown, the folder is missing, or the file is there already.
    """
    kind_of(path)
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder. Give the name of a file.")
    if not path.parent.is_dir():
        raise DataError(f"{str(path)!r}: the folder {str(path.parent)!r} does not exist. Make it first.")
    if path.exists() and not overwrite:
        raise DataError(f"{str(path)!r} exists already. Give another name, or replace it with --force.")


class RowWriter:
    """Writes rows to a file that appears, whole, when the `with` block ends without an error.

    Until then it has a temporary name beside the target, with the same extension.

    The rows of a table wait in a temporary file until its columns and their types are known: memory holds one
    batch of rows at a time. A list or object becomes JSON text in CSV and TSV, and in Parquet and Arrow where
    its types differ between rows (`table_types.widen`).
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Checks the target; nothing is written yet.

        Args:
            path: The file; its extension says the kind.
            overwrite: Replace a file of this name.

        Raises:
            DataError: The target cannot be written or must not be replaced.
        """
        check_target(path, overwrite)
        self.path = path
        self.num_rows = 0
        self._temporary = path.with_name(f".part-{os.getpid()}-{path.name}")
        self._open_files = contextlib.ExitStack()
        self._is_finished = False

    def __enter__(self) -> "RowWriter":
        """Opens the temporary file."""
        kind, codec = kind_of(self.path)
        with self._writing():
            stream = self._open_files.enter_context(pa.OSFile(str(self._temporary), "wb"))
            if codec:
                stream = self._open_files.enter_context(pa.CompressedOutputStream(stream, codec))
            if kind in TABLE_KINDS:
                spool = self._open_files.enter_context(tempfile.TemporaryFile(dir=self.path.parent))
                self._sink: _Sink = _Table(stream, spool, kind)
            else:
                self._sink = _JsonList(stream) if kind == ".json" else _JsonLines(stream)
        return self

    def write(self, fields: Fields) -> None:
        """Writes one row.

        Raises:
            DataError: The kind of file cannot hold a value of the row, or the disk refuses it.
        """
        with self._writing():
            self._sink.write(fields)
        self.num_rows += 1

    def finish(self) -> Path:
        """Writes what is left and returns the temporary file, whole, to be checked before it is moved.

        Raises:
            DataError: The kind of file cannot hold the rows, or the disk refuses them.
        """
        if not self._is_finished:
            with self._writing():
                self._sink.finish()
                self._open_files.close()
                with self._temporary.open("rb") as file:
                    os.fsync(file.fileno())
            self._is_finished = True
        return self._temporary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Moves the finished file into place, or removes what was written of it."""
        try:
            if kind is None:
                self.finish()
                with self._writing():
                    os.replace(self._temporary, self.path)
        finally:
            with contextlib.suppress(OSError):
                self._open_files.close()
            self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnwritableError(
                f"{str(self.path)!r} cannot be written: {error.strerror or error}."
            ) from None


class _JsonLines:
    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, fields: Fields) -> None:
        self.stream.write(_to_json(fields) + b"\n")

    def finish(self) -> None:
        pass


class _JsonList:
    def __init__(self, stream: Any) -> None:
        self.stream, self.separator = stream, b"[\n"

    def write(self, fields: Fields) -> None:
        self.stream.write(self.separator + _to_json(fields))
        self.separator = b",\n"

    def finish(self) -> None:
        self.stream.write(b"[]\n" if self.separator == b"[\n" else b"\n]\n")


class _Table:
    def __init__(self, stream: Any, spool: Any, kind: str) -> None:
        self.stream, self.spool, self.kind = stream, spool, kind
        self.columns: dict[str, ColumnType] = {}
        self.num_rows = 0

    def write(self, fields: Fields) -> None:
        """Spools one row and widens the types of its columns."""
        row, columns = dict(fields), dict(self.columns)
        for name, value in row.items():
            columns[name] = self._type_of(name, value)
        self.columns = columns
        pickle.dump(row, self.spool, pickle.HIGHEST_PROTOCOL)
        self.num_rows += 1

    def finish(self) -> None:
        """Writes the spooled rows under the types that hold all of them."""
        self.spool.seek(0)
        if self.kind in DELIMITERS:
            self._write_text(DELIMITERS[self.kind])
        else:
            self._write_batches()

    def _type_of(self, name: str, value: Any) -> ColumnType:
        known = self.columns.get(name, NULL)
        if self.kind in BINARY_KINDS:
            try:
                return widen(known, value)
            except DataError as error:
                raise DataError(f"the field {name!r} {error}. Write .jsonl instead") from None
        if not isinstance(value, str | int | float | list | dict | None):
            raise DataError(f"the field {name!r} holds {json_type(value)}, which {self.kind} has no text for")
        return known

    def _rows(self) -> Iterator[dict[str, Any]]:
        return (pickle.load(self.spool) for _ in range(self.num_rows))

    def _write_text(self, delimiter: str) -> None:
        writer = csv.writer(_Lines(self.stream), delimiter=delimiter, lineterminator="\r\n")
        if self.columns:
            writer.writerow(self.columns)
        for row in self._rows():
            writer.writerow([_to_text(row.get(name)) for name in self.columns])

    def _write_batches(self) -> None:
        schema = pa.schema([(name, arrow_type(column)) for name, column in self.columns.items()])
        with _open_binary(self.kind, self.stream, schema) as writer:
            rows = self._rows()
            while batch := list(islice(rows, ROWS_PER_BATCH)):
                arrays = [self._to_array(name, batch) for name in self.columns]
                writer.write_batch(pa.record_batch(arrays, schema=schema))

    def _to_array(self, name: str, batch: list[dict[str, Any]]) -> pa.Array:
        column = self.columns[name]
        try:
            return pa.array([to_cell(row.get(name), column) for row in batch], arrow_type(column))
        except (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError) as error:
            raise DataError(
                f"the field {name!r} cannot be written to {self.kind}: {error}. Write .jsonl instead."
            ) from None


class _Lines:
    """What `csv.writer` needs of a text file, over a stream of bytes.

    The writer quotes the characters of its own line end, and a reader takes either of them for one; what is
    written ends with the line feed alone.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Writes one line, or raises `DataError` where UTF-8 cannot."""
        try:
            self.stream.write(text.removesuffix("\r\n").encode() + b"\n")
        except UnicodeEncodeError:
            raise DataError(
                f"half of a surrogate pair cannot be written as UTF-8: {text[:80]!r}. Write .jsonl instead."
            ) from None


def _open_binary(kind: str, stream: Any, schema: pa.Schema) -> Any:
    if kind == ".arrow":
        return pa.ipc.new_file(stream, schema)
    from pyarrow import parquet  # here, because few runs write it

    return parquet.ParquetWriter(stream, schema)


def _to_json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"a value cannot be written as JSON: {error}") from None


def _to_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _to_json(value).decode()


def _allowed() -> str:
    text_kinds = [kind for kind in KINDS if kind not in BINARY_KINDS]
    return f"{', '.join(KINDS)}; {', '.join(text_kinds)} also with {' or '.join(COMPRESSIONS)}"
