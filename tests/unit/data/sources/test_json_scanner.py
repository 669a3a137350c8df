"""Decoding JSON from chunks of text as if it were whole."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loralab.data.sources import Row, read_rows, streams
from loralab.data.sources.faults import FileFault
from loralab.data.sources.json_scanner import JsonScanner

NUMBERS = st.integers() | st.floats(allow_nan=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.builds(
    json.dumps,
    st.lists(VALUES, max_size=6),
    ensure_ascii=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
)
CHUNK_CHARS = st.integers(1, 9)


def cut(text: str, num_chars: int) -> Iterator[str]:
    return (text[start : start + num_chars] for start in range(0, len(text), num_chars))


def read_list(chunks: Iterator[str]) -> tuple[list[Any], str]:
    """What a list yields, and the fault that ends it if any."""
    scanner, values = JsonScanner(chunks), []
    try:
        for value in scanner.elements():
            values.append(value)
        scanner.finish()
    except FileFault as fault:
        return values, str(fault)
    return values, ""


@given(text=DOCUMENTS, num_chars=CHUNK_CHARS)
@example(text='[1.5e+10, -0.25, 12, -Infinity, "\\ud83d\\ude00\\\\", [[]], {}]', num_chars=1)
def test_list_in_chunks_equals_the_whole(text: str, num_chars: int) -> None:
    assert read_list(cut(text, num_chars)) == (json.loads(text), "")


@given(
    text=DOCUMENTS,
    num_chars=CHUNK_CHARS,
    place=st.floats(0, 1),
    mark=st.sampled_from(["", *'[]{},:"\\ 1.e-\nx']),
)
def test_damaged_list_is_refused_where_the_whole_is(
    text: str, num_chars: int, place: float, mark: str
) -> None:
    position = round(place * (len(text) - 1))
    damaged = text[:position] + mark + text[position + 1 :]
    values, fault = read_list(cut(damaged, num_chars))
    try:
        whole = json.loads(damaged)
    except json.JSONDecodeError as error:
        assert fault.startswith(" has broken JSON at line ")
        # Python 3.13 has a message of its own for a comma at the end of a list.
        if damaged.lstrip().startswith("[") and "trailing comma" not in error.msg:
            assert fault == f" has broken JSON at line {error.lineno}, column {error.colno}: {error.msg}."
    else:
        assert (values, fault) == (whole, "") if isinstance(whole, list) else fault


@pytest.mark.parametrize("num_chars", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[1\n 2]", "line 2, column 2: Expecting ',' delimiter"),
        ('[{"a": 1},\n {"a" 1}]', "line 2, column 7: Expecting ':' delimiter"),
        ("[\n\n1.x]", "line 3, column 2: Expecting ',' delimiter"),
        ('["a', "line 1, column 2: Unterminated string starting at"),
        ("[1,", "line 1, column 4: Expecting value"),
        ("[1", "line 1, column 3: Expecting ',' delimiter"),
        ("[1] 2", "line 1, column 5: Extra data"),
        ("[tru]", "line 1, column 2: Expecting value"),
    ],
)
def test_place_of_a_fault_does_not_depend_on_chunks(text: str, fault: str, num_chars: int) -> None:
    assert read_list(cut(text, num_chars))[1] == f" has broken JSON at {fault}."


def test_members_leave_their_values_to_the_caller() -> None:
    scanner = JsonScanner(cut('{"a": [1, {"b": 2}], "c": {"d": []}, "e": "x"}', 2))
    found: dict[str, Any] = {}
    for name in scanner.members():
        found[name] = list(scanner.elements()) if scanner.peek() == "[" else scanner.value()
    assert found == {"a": [1, {"b": 2}], "c": {"d": []}, "e": "x"}
    assert scanner.peek() == ""


def count_chunks(text: str, num_chars: int, taken: list[int]) -> Iterator[str]:
    for number, chunk in enumerate(cut(text, num_chars), start=1):
        taken[0] = number
        yield chunk


def test_error_is_found_where_it_stands() -> None:
    taken = [0]
    text = '[{"a" 1},' + "[1]," * 10_000
    with pytest.raises(FileFault, match="line 1, column 7"):
        list(JsonScanner(count_chunks(text, 8, taken)).elements())
    assert taken[0] < 10


def test_first_element_takes_no_more_text_than_it_needs() -> None:
    taken = [0]
    text = json.dumps([{"a": number} for number in range(1000)])
    assert next(JsonScanner(count_chunks(text, 8, taken)).elements()) == {"a": 0}
    assert taken[0] < 5


def test_text_is_forgotten_once_it_is_read() -> None:
    scanner, most = JsonScanner(cut(json.dumps([{"a": "x" * 50}] * 1000), 64)), 0
    for _ in scanner.elements():
        most = max(most, len(scanner._text))
    assert most < 400


@pytest.mark.parametrize("num_bytes", [1, 2, 7])
def test_file_in_tiny_chunks_equals_the_whole(
    num_bytes: int, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"a": "é\u2028\U0001f600", "b": [1.5, None, {"c": '\\"\n'}]}, {}, {"a": -12e-7}]
    monkeypatch.setattr(streams, "CHUNK_BYTES", num_bytes)
    for name, text in {
        "a.json": json.dumps(rows, ensure_ascii=False),
        "b.json": json.dumps({"x": [], "data": rows}, indent=1),
        "c.jsonl": "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
    }.items():
        assert [row.fields for row in read_rows(write(name, text)) if isinstance(row, Row)] == rows
    text = '\ufeffa,b\r\n"é\r\n,""",\U0001f600\r\n\r\nx,y\ru,v'
    assert list(read_rows(write("a.csv", text))) == [
        Row(2, {"a": 'é\r\n,"', "b": "\U0001f600"}),
        Row(5, {"a": "x", "b": "y"}),
        Row(6, {"a": "u", "b": "v"}),
    ]
