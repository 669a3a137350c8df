"""From a file on disk to raw rows; one reader per file extension."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Row:
    """One raw row of a data file."""

    line: int
    """Place in the file, counted from 1: the line of a JSONL file, the index in a JSON list."""
    fields: dict[str, Any]
    """The row's fields as the file names them."""
    unit: str = "line"
    """What `line` counts: `line` or `row`."""

    @property
    def place(self) -> str:
        """The place as error messages name it, such as `line 7`."""
        return f"{self.unit} {self.line}"


def read_rows(path: Path) -> list[Row]:
    """Reads every row of a data file, in order.

    Raises:
        DataError: The file is missing, unreadable, empty, broken, or of an unknown kind.
    """
    try:
        # Path.exists() would hide why a path cannot be reached; stat() raises the reason.
        path.stat()
        if path.is_dir():
            raise _fault(path, f" is a folder; give one file in it.{_example_file(path)}")
        rows = _reader(path)(path)
    except FileNotFoundError:
        raise _fault(path, f" does not exist.{_close_name(path)}") from None
    except PermissionError:
        raise _fault(path, " cannot be opened: no permission to read it; try `chmod u+r` on it.") from None
    except UnicodeDecodeError as error:
        raise _fault(path, _explain_encoding(error)) from None
    except OSError as error:
        raise _fault(path, f" cannot be read: {error.strerror}.") from None
    if not rows:
        raise _fault(path, " has no rows; at least one is needed.")
    return rows


def json_type(value: object) -> str:
    """Names a value's type in the words of JSON, with its article, such as `a list`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def _fault(path: Path, text: str) -> DataError:
    return DataError(f"data.path={str(path)!r}{text}")


def _reader(path: Path) -> Callable[[Path], list[Row]]:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        what = f"the extension {suffix!r} is unknown" if suffix else "the name has no extension"
        hint = did_you_mean(suffix, READERS)
        raise _fault(path, f": {what}.{hint} Allowed: {', '.join(READERS)}.")
    return READERS[suffix]


def _close_name(path: Path) -> str:
    if not path.parent.is_dir():
        return f" Its folder {str(path.parent)!r} does not exist either."
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    return did_you_mean(path.name, names)


def _example_file(folder: Path) -> str:
    files = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in READERS)
    return f" For example {str(files[0])!r}." if files else ""


def _explain_encoding(error: UnicodeDecodeError) -> str:
    line = error.object.count(b"\n", 0, error.start) + 1
    byte = error.object[error.start]
    return f" is not UTF-8: byte 0x{byte:02x} in line {line}; save the file again as UTF-8."


def _read_text(path: Path) -> str:
    text = path.read_bytes().decode("utf-8-sig")
    if not text.strip():
        raise _fault(path, " is empty; at least one row is needed.")
    return text


def _parse(path: Path, text: str, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {first_line + error.lineno - 1}, column {error.colno}"
        raise _fault(path, f" has broken JSON at {place}: {error.msg}.") from None
    except (RecursionError, ValueError) as error:
        raise _fault(path, f" has JSON from line {first_line} on that cannot be read: {error}.") from None


def _read_json(path: Path) -> list[Row]:
    text = _read_text(path)
    if _holds_lines(text):
        return _rows_of_lines(path, text)
    document = _parse(path, text)
    if isinstance(document, dict):
        document = _inner_list(path, document, is_one_line="\n" not in text.strip())
    if not isinstance(document, list):
        raise _fault(path, f" holds {json_type(document)}; a list of objects is needed.")
    return [_row(path, Row(i, fields, "row")) for i, fields in enumerate(document, start=1)]


def _holds_lines(text: str) -> bool:
    """Whether a complete object ends before the text does, as in a file of one object per line."""
    start = text.lstrip()
    if not start.startswith("{"):
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(start)
    except (RecursionError, ValueError):
        return False
    return bool(start[end:].strip())


def _inner_list(path: Path, document: dict[str, Any], is_one_line: bool) -> list[Any]:
    lists = {
        key: value
        for key, value in document.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    if len(lists) == 1:
        return next(iter(lists.values()))
    if list(document.values()) == [[]]:
        return []
    if is_one_line:
        # A file of one object per line that happens to have a single line.
        return [document]
    if lists:
        names = ", ".join(map(repr, lists))
        raise _fault(path, f" holds {len(lists)} lists of objects ({names}); keep one list in a file.")
    raise _fault(path, " holds an object without a list of objects in it; a list of objects is needed.")


def _read_lines(path: Path) -> list[Row]:
    return _rows_of_lines(path, _read_text(path))


def _rows_of_lines(path: Path, text: str) -> list[Row]:
    rows: list[Row] = []
    # Not splitlines(): JSON strings may hold U+2028 and other characters that it breaks at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = _parse(path, line, number)
        except DataError as error:
            # Only the first row can tell that the whole file is one document.
            hint = "" if rows else _document_hint(path, line)
            raise DataError(f"{error}{hint}") from None
        rows.append(_row(path, Row(number, fields)))
    return rows


def _document_hint(path: Path, line: str) -> str:
    if line.strip() in ("[", "{", "[{") and path.suffix.lower() != ".json":
        return " If the file is one JSON document, name it .json."
    return ""


def _row(path: Path, row: Row) -> Row:
    if not isinstance(row.fields, dict):
        raise _fault(path, f" {row.place}: {json_type(row.fields)} where an object with fields is needed.")
    return row


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
}
"""The reader of each file extension."""
