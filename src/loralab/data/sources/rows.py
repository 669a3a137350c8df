"""Raw rows, readable or not, and where they stand."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One raw row of a data file."""

    line: int
    """Place in the file, counted from 1: the line of a JSONL or CSV file, the index in other files."""
    fields: dict[str, Any]
    """The row's fields as the file names them."""
    unit: str = "line"
    """What `line` counts: `line` or `row`."""

    @property
    def place(self) -> str:
        """The place as error messages name it, such as `line 7`."""
        return f"{self.unit} {self.line}"


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be read; the rows after it can."""

    line: int
    """Place in the file, counted as in `Row`."""
    unit: str
    """What `line` counts: `line` or `row`."""
    reason: str
    """What is wrong with it, as the end of a message that names the place."""

    @property
    def place(self) -> str:
        """The place as error messages name it, such as `line 7`."""
        return f"{self.unit} {self.line}"


def to_row(line: int, unit: str, value: object) -> Row | BrokenRow:
    """Makes a row of a decoded value; anything but an object with fields is a broken one."""
    if isinstance(value, dict):
        return Row(line, value, unit)
    return BrokenRow(line, unit, f"{json_type(value)} where an object with fields is needed")


def json_type(value: object) -> str:
    """Names a value's type in the words of JSON, with its article, such as `a list`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
