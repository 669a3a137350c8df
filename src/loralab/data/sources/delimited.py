"""Rows of CSV and TSV files: a header that names the fields, then one record per row, all strings."""

import csv
import re
from collections import Counter, deque
from collections.abc import Iterator

from loralab.data.sources.faults import FileFault
from loralab.data.sources.rows import BrokenRow, Row
from loralab.data.sources.streams import EMPTY, SourceFile, read_text

DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHER_DELIMITERS = {".csv": "\t;|", ".tsv": ",;|"}
"""What parts the columns of files whose header seems to name a single one."""
MOST_FIELD_CHARS = 1 << 26
"""Longest field; what a quote that is never closed can swallow at most."""

_LINES = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")


class _Lines:
    """Feeds the csv reader, and takes back the lines that a broken record swallowed."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._waiting: deque[str] = deque()
        self._taken: list[str] = []
        self.line = 0
        """Number of the last line given out."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self._taken.append(line)
        self.line += 1
        return line

    def begin(self) -> int:
        """Begins a record; returns the number of its first line."""
        self._taken.clear()
        return self.line + 1

    def take_back(self) -> None:
        """Gives all lines of the record but its first out again."""
        again = self._taken[1:]
        self._waiting.extendleft(reversed(again))
        self.line -= len(again)


def read_delimited(file: SourceFile) -> Iterator[Row | BrokenRow]:
    """Yields the rows of a CSV or TSV file; blank lines are passed over.

    Raises:
        FileFault: The file is empty, no text, or its header is missing or unusable.
        OSError: The file cannot be opened or read.
    """
    # A setting of the whole process; its default of 128 KiB is too little for documents.
    csv.field_size_limit(MOST_FIELD_CHARS)
    lines = _Lines(_split_lines(read_text(file)))
    # Not strict, csv would take the rest of the file for one field where a quote is never closed.
    reader = csv.reader(lines, delimiter=DELIMITERS[file.kind], strict=True)
    header = _read_header(reader, lines, file.kind)
    while True:
        start = lines.begin()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            lines.take_back()
            yield BrokenRow(start, "line", _explain(error))
            continue
        if cells is None:
            return
        if len(cells) == len(header):
            yield Row(start, dict(zip(header, cells, strict=True)))
        elif cells:
            yield BrokenRow(start, "line", f"{_count(cells)} where the header names {len(header)}")


def _read_header(reader: Iterator[list[str]], lines: _Lines, kind: str) -> list[str]:
    header: list[str] | None = []
    while header == []:
        start = lines.begin()
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise FileFault(f" has a header that cannot be read: line {start}: {_explain(error)}.") from None
    if header is None or not any(name.strip() for name in header):
        raise FileFault(EMPTY if header is None else " has a header without names; name each column.")
    nameless = [number for number, name in enumerate(header, start=1) if not name.strip()]
    if nameless:
        raise FileFault(f" has no name for column {nameless[0]} in its header; name or remove the column.")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise FileFault(f" names the column {twice[0]!r} twice in its header; rename one of them.")
    wrong = next((mark for mark in OTHER_DELIMITERS[kind] if len(header) == 1 and mark in header[0]), None)
    if wrong:
        fix = {"\t": "name it .tsv", ",": "name it .csv"}.get(wrong, "save it again so")
        raise FileFault(f" parts its columns by {wrong!r} where {DELIMITERS[kind]!r} is needed; {fix}.")
    return header


def _split_lines(chunks: Iterator[str]) -> Iterator[str]:
    r"""Yields lines with their ends: `\n`, `\r\n`, or `\r` alone."""
    begun: list[str] = []
    for chunk in chunks:
        if "\n" not in chunk and "\r" not in chunk and not (begun and begun[-1].endswith("\r")):
            begun.append(chunk)
            continue
        *whole, last = _LINES.findall("".join([*begun, chunk])) or [""]
        # A chunk may end between `\r` and `\n`.
        if last.endswith("\n"):
            whole.append(last)
            last = ""
        yield from whole
        begun = [last]
    if rest := "".join(begun):
        yield rest


def _count(cells: list[str]) -> str:
    return "1 field" if len(cells) == 1 else f"{len(cells)} fields"


def _explain(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "a quoted field is never closed; a quote inside quotes is written twice"
    if "field larger" in text:
        return f"a field is longer than {MOST_FIELD_CHARS} characters; is a quote never closed?"
    if "expected after" in text:
        return f"text follows a closing quote ({text}); a quote inside quotes is written twice"
    return f"broken CSV: {text}"
