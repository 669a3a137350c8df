"""Rows of a file with one JSON object per line."""

import codecs
import json
from collections.abc import Iterator
from typing import AnyStr

from loralab.data.sources.faults import FileFault
from loralab.data.sources.rows import BrokenRow, Row, to_row
from loralab.data.sources.streams import (
    EMPTY,
    SourceFile,
    explain_encoding,
    is_utf8,
    read_decodable_chunks,
    read_text,
)

NAME_IT_JSON = "if the file is one JSON document, name it .json"


def read_json_lines(file: SourceFile) -> Iterator[Row | BrokenRow]:
    """Yields the rows of a JSONL file; blank lines are passed over.

    Raises:
        FileFault: The file is empty, no text, or a JSON document over several lines.
        OSError: The file cannot be opened or read.
    """
    is_first = True
    for number, line in enumerate(_read_lines(file), start=1):
        if isinstance(line, BrokenRow):
            row: Row | BrokenRow = line
        elif not line.strip():
            continue
        else:
            row = _parse(line, number)
        if is_first and file.kind != ".json" and isinstance(row, BrokenRow) and isinstance(line, str):
            row = _hint_at_document(row, line)
        is_first = False
        yield row
    if is_first:
        raise FileFault(EMPTY)


def split_lines(chunks: Iterator[AnyStr], newline: AnyStr) -> Iterator[AnyStr]:
    r"""Yields the lines of chunked text or bytes without their ends.

    Only `newline` ends a line: JSON strings may hold U+2028 and others that `splitlines` breaks at.
    """
    empty = newline[:0]
    begun: list[AnyStr] = []
    for chunk in chunks:
        parts = chunk.split(newline)
        begun.append(parts[0])
        if len(parts) > 1:
            yield empty.join(begun)
            yield from parts[1:-1]
            begun = [parts[-1]]
    if last := empty.join(begun):
        yield last


def _read_lines(file: SourceFile) -> Iterator[str | BrokenRow]:
    if "\n{".encode(file.encoding) not in (b"\n{", codecs.BOM_UTF8 + b"\n{"):
        # Where a line's end is not this one byte, as in UTF-16, lines cannot be told before decoding.
        yield from split_lines(read_text(file), "\n")
        return
    encoding = "utf-8" if is_utf8(file.encoding) else file.encoding
    for number, line in enumerate(split_lines(read_decodable_chunks(file), b"\n"), start=1):
        try:
            yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode(encoding)
        except UnicodeDecodeError as error:
            yield BrokenRow(number, "line", explain_encoding(error, file.encoding))


def _parse(line: str, number: int) -> Row | BrokenRow:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return BrokenRow(number, "line", f"broken JSON at column {error.colno}: {error.msg}")
    except (RecursionError, ValueError) as error:
        return BrokenRow(number, "line", f"JSON that cannot be read: {error}")
    return to_row(number, "line", value)


def _hint_at_document(row: BrokenRow, line: str) -> BrokenRow:
    """Only the first row can tell that the whole file is one document."""
    if line.strip() in ("[", "{", "[{"):
        reason = row.reason.replace("at column", f"at line {row.line}, column")
        raise FileFault(f" has {reason}. {NAME_IT_JSON[0].upper()}{NAME_IT_JSON[1:]}.")
    if line.lstrip().startswith("["):
        return BrokenRow(row.line, row.unit, f"{row.reason}; {NAME_IT_JSON}")
    return row
