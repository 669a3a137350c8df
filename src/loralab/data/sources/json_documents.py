"""Rows of a file that is one JSON document: a list of objects, or an object with such a list in it."""

from collections.abc import Iterator
from dataclasses import dataclass

from loralab.data.sources.faults import FileFault
from loralab.data.sources.json_lines import read_json_lines
from loralab.data.sources.json_scanner import JsonScanner
from loralab.data.sources.rows import BrokenRow, Row, json_type, to_row
from loralab.data.sources.streams import EMPTY, SourceFile, read_text

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class _Outline:
    """What the first object of a file looks like."""

    lists: dict[str, int]
    """Place among the members of each list of objects, by name."""
    is_empty_list: bool
    """Whether its one member is an empty list."""
    is_one_line: bool
    """Whether it begins and ends in the same line."""
    is_alone: bool
    """Whether nothing follows it."""


def read_json(file: SourceFile) -> Iterator[Row | BrokenRow]:
    """Yields the rows of a JSON file: of its list, or of its lines where each holds an object.

    After a syntax error in a document there is no telling where the next row begins, so it ends the reading.

    Raises:
        FileFault: The file is empty, broken, no text, or holds no single list of objects.
        OSError: The file cannot be opened or read.
    """
    scanner = JsonScanner(read_text(file))
    first = scanner.peek()
    if not first:
        raise FileFault(EMPTY)
    if first == "[":
        yield from _rows(scanner)
        scanner.finish()
    elif first == "{":
        yield from _read_object(file, scanner)
    else:
        value = scanner.value()
        scanner.finish()
        raise FileFault(f" holds {json_type(value)}; a list of objects is needed.")


def _rows(scanner: JsonScanner) -> Iterator[Row | BrokenRow]:
    for number, value in enumerate(scanner.elements(), start=1):
        yield to_row(number, "row", value)


def _read_object(file: SourceFile, scanner: JsonScanner) -> Iterator[Row | BrokenRow]:
    outline = _survey(scanner)
    if not outline.is_alone:
        if not outline.is_one_line:
            raise FileFault(
                " holds several objects over several lines; put them into one list, or one per line."
            )
        yield from read_json_lines(file)
        return
    # Which list holds the rows is known at the end only, so the file is read a second time.
    again = JsonScanner(read_text(file))
    if len(outline.lists) == 1:
        (wanted,) = outline.lists.values()
        for number, _ in enumerate(again.members()):
            if number == wanted:
                yield from _rows(again)
                return
            again.value()
    elif outline.is_empty_list:
        return
    elif outline.is_one_line:
        # A file of one object per line that happens to have a single line.
        yield to_row(1, "row", again.value())
    elif outline.lists:
        names = ", ".join(map(repr, outline.lists))
        raise FileFault(f" holds {len(outline.lists)} lists of objects ({names}); keep one list in a file.")
    else:
        raise FileFault(" holds an object without a list of objects in it; a list of objects is needed.")


def _survey(scanner: JsonScanner) -> _Outline:
    lists: dict[str, int] = {}
    empty: dict[str, bool] = {}
    begin = scanner.line
    for number, name in enumerate(scanner.members()):
        # Of a name given twice the last one counts, as everywhere in JSON.
        lists.pop(name, None)
        empty[name] = False
        if scanner.peek() != "[":
            scanner.value()
            continue
        elements = scanner.elements()
        first = next(elements, _NOTHING)
        for _ in elements:
            pass
        empty[name] = first is _NOTHING
        if isinstance(first, dict):
            lists[name] = number
    is_one_line = scanner.line == begin
    return _Outline(lists, list(empty.values()) == [True], is_one_line, not scanner.peek())
