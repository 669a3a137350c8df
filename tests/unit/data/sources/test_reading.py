"""What reading a file yields and says, for sound, odd and broken files of every kind."""

import csv
import gzip
import io
import json
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather

from loralab.data.sources import READERS, BrokenRow, Row, read_rows
from loralab.errors import DataError

Write = Callable[[str, str | bytes], Path]
Read = Callable[..., tuple[list[Any], str]]

FIVE_ROWS = [
    {"prompt": "a", "response": "b"},
    {"prompt": "commas, and\nlines", "response": 'quotes " and \\'},
    {"prompt": "", "response": "the prompt is empty"},
    {"prompt": "é 漢 \U0001f600 \u2028", "response": " spaces "},
    {"prompt": '[{"role": "user"}]', "response": "\t tab"},
]
TURNS = {
    "messages": [{"role": "user", "content": "hi", "tool": None}, {"role": "tool", "content": "x", "tool": 1}]
}
ANY_ROWS = st.lists(
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()), min_size=1, max_size=5
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows)


def to_csv(delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(FIVE_ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(FIVE_ROWS)
    return text.getvalue().encode()


def to_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def to_ipc(table: pa.Table, *, as_file: bool) -> bytes:
    sink = io.BytesIO()
    with (pa.ipc.new_file if as_file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def to_feather(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    feather.write_feather(table, sink)
    return sink.getvalue()


CONTENTS = {
    "list.json": json.dumps(FIVE_ROWS, indent=1, ensure_ascii=False).encode(),
    "inside.json": json.dumps({"version": 1, "tags": ["x"], "data": FIVE_ROWS, "n": {"a": []}}).encode(),
    "lines.json": "\n".join(json.dumps(row) for row in FIVE_ROWS).encode(),
    "a.jsonl": "\r\n".join(json.dumps(row, ensure_ascii=False) for row in FIVE_ROWS).encode(),
    "a.NDJSON": "".join(json.dumps(row) + "\n" for row in FIVE_ROWS).encode(),
    "a.csv": to_csv(","),
    "a.tsv": to_csv("\t"),
    "a.parquet": to_parquet(table_of(FIVE_ROWS)),
    "file.arrow": to_ipc(table_of(FIVE_ROWS), as_file=True),
    "stream.arrow": to_ipc(table_of(FIVE_ROWS), as_file=False),
    "a.feather": to_feather(table_of(FIVE_ROWS)),
}


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", CONTENTS)
def test_same_rows_come_out_of_every_kind(name: str, compression: str, write: Write, read: Read) -> None:
    assert read(write(name + compression, CONTENTS[name])) == (FIVE_ROWS, "")


def test_every_kind_is_round_tripped() -> None:
    assert {Path(name).suffix.lower() for name in CONTENTS} == set(READERS)


@pytest.mark.parametrize("name", ["a.jsonl", "list.json", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030", "cp037"])
def test_named_encoding_is_read(name: str, encoding: str, write: Write, read: Read) -> None:
    rows = [{"text": "é\r\nÅ"}, {"text": "ü;"}]
    contents = {
        "a.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "list.json": json.dumps(rows, ensure_ascii=False),
        "a.csv": 'text\r\n"é\r\nÅ"\r\nü;\r\n',
    }
    path = write(name, contents[name].encode(encoding))
    assert read(path, encoding=encoding) == (rows, "")


def test_places_count_lines_of_text_and_rows_of_documents(write: Write) -> None:
    assert list(read_rows(write("a.json", '[\n {"text": "é"},\n\n {"text": "b"}\n]'))) == [
        Row(1, {"text": "é"}, "row"), Row(2, {"text": "b"}, "row"),
    ]  # fmt: skip
    assert list(read_rows(write("b.json", '{"text": "a"}\n\n{"text": "b"}\n'))) == [
        Row(1, {"text": "a"}, "line"), Row(3, {"text": "b"}, "line"),
    ]  # fmt: skip
    assert list(read_rows(write("a.jsonl", '\n{"text": "a"}\r\n  \n[]'))) == [
        Row(2, {"text": "a"}, "line"), BrokenRow(4, "line", "a list where an object with fields is needed"),
    ]  # fmt: skip
    assert list(read_rows(write("a.csv", 'text\n\n"a\nb"\nc\n'))) == [
        Row(3, {"text": "a\nb"}, "line"), Row(5, {"text": "c"}, "line"),
    ]  # fmt: skip
    table = table_of([{"n": number} for number in range(600)])
    assert [row.line for row in read_rows(write("a.parquet", to_parquet(table)))] == list(range(1, 601))


NESTED = '{"a": ' + "[" * 200_000
AN_OBJECT = "where an object with fields is needed"
KINDS = ".json, .jsonl, .ndjson, .csv, .tsv, .parquet, .arrow, .feather, each also with .gz or .zst after it."
OTHER_ENCODING = "save the file again as UTF-8, or name its encoding, such as data.encoding=latin-1"
TABLE = table_of([{"a": 1}, {"a": 2}, {"a": 3}])

ODD_BUT_SOUND = {
    "inner list on one line": ("a.json", '{"version": 1, "data": [{"a": 1}], "tags": ["x"]}', [{"a": 1}]),
    "one object alone": ("a.json", '{"a": 1}', [{"a": 1}]),
    "two lists on one line": ("a.json", '{"p": [{}], "c": [{}]}\n', [{"p": [{}], "c": [{}]}]),
    "list named twice": ("a.json", '{\n"a": [{"n": 1}], "a": [{"n": 2}]}', [{"n": 2}]),
    "mark before a list": ("a.json", '\ufeff[{"a": 1}]', [{"a": 1}]),
    "mark before lines": ("a.jsonl", '\ufeff{"a": 1}\n', [{"a": 1}]),
    "mark before a header": ("a.csv", "\ufeffa,b\n1,2\n", [{"a": "1", "b": "2"}]),
    "line separator in a string": ("a.jsonl", '{"a": "\u2028\x85"}\n', [{"a": "\u2028\x85"}]),
    "infinity": ("a.jsonl", '{"a": -Infinity}', [{"a": float("-inf")}]),
    "name given twice": ("a.jsonl", '{"a": 1, "a": 2}', [{"a": 2}]),
    "long line": ("a.jsonl", '{"a": "' + "x" * 300_000 + '"}\n{"a": 1}', [{"a": "x" * 300_000}, {"a": 1}]),
    "empty objects": ("a.json", "[{}, {}]", [{}, {}]),
    "old line ends": ("a.csv", "a,b\r1,2\r3,4", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
    "long field": ("a.csv", "a\n" + "x" * 300_000 + "\n", [{"a": "x" * 300_000}]),
    "quote inside a field": ("a.csv", 'a,b\n5" pipe,"say ""hi"""\n', [{"a": '5" pipe', "b": 'say "hi"'}]),
    "comma in the only name": ("a.csv", '"a,b"\n1\n', [{"a,b": "1"}]),
    "two members": ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n') * 2, [{"a": 1}, {"a": 1}]),
    "nested nulls": ("a.parquet", to_parquet(table_of([TURNS])), [TURNS]),
    "map": (
        "a.parquet",
        to_parquet(pa.table({"a": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))})),
        [{"a": {"k": 1}}],
    ),
}  # fmt: skip


def write_as_is(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("case", ODD_BUT_SOUND)
def test_odd_file_is_read(case: str, tmp_path: Path, read: Read) -> None:
    name, content, rows = ODD_BUT_SOUND[case]
    assert read(write_as_is(tmp_path, name, content)) == (rows, "")


def json_fault(place: str, text: str) -> str:
    return f"broken JSON at {place}: {text}"


BROKEN_ROWS: dict[str, tuple[str, str | bytes, list[Any]]] = {
    "colon missing": (
        "a.jsonl",
        '{"a": 1}\n\n{"a" 2}\n{"a": 3}',
        [{"a": 1}, ("line 3", json_fault("column 6", "Expecting ':' delimiter")), {"a": 3}],
    ),
    "colon missing in a .json of lines": (
        "a.json",
        '{"a": 1}\n{"a" 2}\n{"a": 3}',
        [{"a": 1}, ("line 2", json_fault("column 6", "Expecting ':' delimiter")), {"a": 3}],
    ),
    "last line cut off": (
        "a.jsonl",
        '{"a": 1}\n{"a": "x',
        [{"a": 1}, ("line 2", json_fault("column 7", "Unterminated string starting at"))],
    ),
    "two objects in a line": (
        "a.jsonl",
        '{"a": 1}{"a": 2}\n{"a": 3}',
        [("line 1", json_fault("column 9", "Extra data")), {"a": 3}],
    ),
    "single quotes": (
        "a.jsonl",
        "{'a': 1}\n{\"a\": 2}",
        [
            ("line 1", json_fault("column 2", "Expecting property name enclosed in double quotes")),
            {"a": 2},
        ],
    ),
    "list first": (
        "a.jsonl",
        '[{"a": 1}]\n{"a": 2}',
        [("line 1", f"a list {AN_OBJECT}; if the file is one JSON document, name it .json"), {"a": 2}],
    ),
    "list later": ("a.jsonl", '{"a": 1}\n[1]\n{}', [{"a": 1}, ("line 2", f"a list {AN_OBJECT}"), {}]),
    "null": ("a.jsonl", 'null\n{"a": 1}', [("line 1", f"null {AN_OBJECT}"), {"a": 1}]),
    "boolean": ("a.jsonl", '{"a": 1}\ntrue', [{"a": 1}, ("line 2", f"true or false {AN_OBJECT}")]),
    "text in a list": (
        "a.json",
        '[{"a": 1}, "b", {"a": 2}]',
        [{"a": 1}, ("row 2", f"a string {AN_OBJECT}"), {"a": 2}],
    ),
    "number in an inner list": (
        "a.json",
        '{"data": [{"a": 1}, 2, {"a": 3}]}',
        [{"a": 1}, ("row 2", f"a number {AN_OBJECT}"), {"a": 3}],
    ),
    "zeros at the end": (
        "a.jsonl",
        b'{"a": 1}\n\0\0\0',
        [{"a": 1}, ("line 2", json_fault("column 1", "Expecting value"))],
    ),
    "nested too deeply": (
        "a.jsonl",
        f'{{"a": 1}}\n{NESTED}\n{{"a": 3}}',
        [{"a": 1}, ("line 2", "JSON that cannot be read: maximum recursion depth exceeded"), {"a": 3}],
    ),
    "number too long": (
        "a.jsonl",
        f'{{"a": {"1" * 5000}}}\n{{"a": 2}}',
        [("line 1", "JSON that cannot be read: Exceeds the limit"), {"a": 2}],
    ),
    "no UTF-8 in one line": (
        "a.jsonl",
        b'{"a": 1}\n{"a": "\xe9"}\n{"a": 3}',
        [{"a": 1}, ("line 2", f"is not UTF-8: byte 0xe9; {OTHER_ENCODING}"), {"a": 3}],
    ),
    "no UTF-8 in one line of .json": (
        "a.json",
        b'{"a": 1}\n{"a": "\xff"}\n{"a": 3}',
        [{"a": 1}, ("line 2", f"is not UTF-8: byte 0xff; {OTHER_ENCODING}"), {"a": 3}],
    ),
    "too many fields": (
        "a.csv",
        'a,b\n1,2\n"x\ny",2,3\n5,6\n',
        [{"a": "1", "b": "2"}, ("line 3", "3 fields where the header names 2"), {"a": "5", "b": "6"}],
    ),
    "too few fields": (
        "a.tsv",
        "a\tb\n1\n3\t4\n",
        [("line 2", "1 field where the header names 2"), {"a": "3", "b": "4"}],
    ),
    "quote never closed": (
        "a.csv",
        'a,b\n1,2\n"3,4\n5,6\n7\n',
        [
            {"a": "1", "b": "2"},
            ("line 3", "a quoted field is never closed; a quote inside quotes is written twice"),
            {"a": "5", "b": "6"},
            ("line 5", "1 field where the header names 2"),
        ],
    ),
    "text after a quote": (
        "a.csv",
        'a,b\n"1"x,2\n3,4\n',
        [("line 2", "text follows a closing quote (',' expected after '\"');"), {"a": "3", "b": "4"}],
    ),
    "text that is no UTF-8 in Parquet": (
        "a.parquet",
        to_parquet(pa.table({"a": pa.array([b"x", b"\xe9", b"z"]).cast(pa.binary()).view(pa.string())})),
        [{"a": "x"}, ("row 2", "a value that cannot be read: 'utf-8' codec can't decode"), {"a": "z"}],
    ),
}


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_reading_goes_on_after_a_broken_row(case: str, compression: str, write: Write, read: Read) -> None:
    name, content, expected = BROKEN_ROWS[case]
    rows, fault = read(write(name + compression, content))
    assert fault == ""
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        if isinstance(wanted, tuple):
            assert row[0] == wanted[0]
            assert row[1].startswith(wanted[1])
        else:
            assert row == wanted


PACKED = gzip.compress(b'{"a": 1}\n{"a": 2}\n' + os.urandom(300).hex().encode(), mtime=0)
STREAM, IPC_FILE = to_ipc(TABLE, as_file=False), to_ipc(TABLE, as_file=True)
EMPTY = "is empty; at least one row is needed."
NO_ROWS = "has no rows; at least one is needed."

BROKEN_FILES: dict[str, tuple[str, str | bytes, list[Any], str]] = {
    "empty JSON": ("a.json", "", [], EMPTY),
    "empty CSV": ("a.csv", "", [], EMPTY),
    "empty Parquet": ("a.parquet", "", [], EMPTY),
    "empty gzip": ("a.jsonl.gz", gzip.compress(b""), [], EMPTY),
    "blank lines alone": ("a.jsonl", "\ufeff \n\n", [], EMPTY),
    "white space alone": ("a.json", "\ufeff \n\n", [], EMPTY),
    "blank CSV": ("a.csv", "\n\n", [], EMPTY),
    "header alone": ("a.csv", "a,b\n", [], NO_ROWS),
    "empty list": ("a.json", "[]", [], NO_ROWS),
    "empty inner list": ("a.json", '{"data": []}', [], NO_ROWS),
    "Parquet without rows": ("a.parquet", to_parquet(TABLE.slice(0, 0)), [], NO_ROWS),
    "Arrow without rows": ("a.arrow", to_ipc(TABLE.slice(0, 0), as_file=True), [], NO_ROWS),
    "comma missing": (
        "a.json",
        '[\n{"a": 1}\n{"a": 2}]',
        [{"a": 1}],
        "has broken JSON at line 3, column 1: Expecting ',' delimiter.",
    ),
    "comma at the end": (
        "a.json",
        '[{"a": 1}, ]',
        [{"a": 1}],
        "has broken JSON at line 1, column 12: Expecting value.",
    ),
    "list cut off": (
        "a.json",
        '[{"a": 1},\n{"a": 2},\n{"a": "x',
        [{"a": 1}, {"a": 2}],
        "has broken JSON at line 3, column 7: Unterminated string starting at.",
    ),
    "text after the list": (
        "a.json",
        '[{"a": 1}]\n]',
        [{"a": 1}],
        "has broken JSON at line 2, column 1: Extra data.",
    ),
    "key without quotes": (
        "a.json",
        '{\n"a": 1, b: 2}',
        [],
        "has broken JSON at line 2, column 9: Expecting property name enclosed in double quotes.",
    ),
    "newline in a string": (
        "a.json",
        '[{"a": "x\ny"}]',
        [],
        "has broken JSON at line 1, column 10: Invalid control character at.",
    ),
    "nested too deeply": (
        "a.json",
        f'[{{"a": 1}},\n{NESTED}',
        [{"a": 1}],
        "has JSON from line 2 on that cannot be read: maximum recursion depth exceeded",
    ),
    "number alone": ("a.json", "3", [], "holds a number; a list of objects is needed."),
    "two lists": (
        "a.json",
        '{\n"a": [{}], "b": [{}]}',
        [],
        "holds 2 lists of objects ('a', 'b'); keep one list in a file.",
    ),
    "no list": (
        "a.json",
        '{\n"a": 1}',
        [],
        "holds an object without a list of objects in it; a list of objects is needed.",
    ),
    "list replaced by a later member": (
        "a.json",
        '{\n"a": [{"n": 1}], "a": 1}',
        [],
        "holds an object without a list of objects in it; a list of objects is needed.",
    ),
    "objects over several lines": (
        "a.json",
        '{\n"a": 1\n}\n{\n"a": 2\n}',
        [],
        "holds several objects over several lines; put them into one list, or one per line.",
    ),
    "document named as lines": (
        "a.jsonl",
        '[\n{"a": 1}\n]',
        [],
        "has broken JSON at line 1, column 2: Expecting value. "
        "If the file is one JSON document, name it .json.",
    ),
    "no UTF-8 in a document": (
        "a.json",
        b'[{"a": 1},\n{"a": "\xe9"}]',
        [{"a": 1}],
        f"is not UTF-8: byte 0xe9 in line 2; {OTHER_ENCODING}.",
    ),
    "no UTF-8 in CSV": (
        "a.csv",
        b"a\nx\ny\n\xe9\n",
        [{"a": "x"}, {"a": "y"}],
        f"is not UTF-8: byte 0xe9 in line 4; {OTHER_ENCODING}.",
    ),
    "character cut off": (
        "a.csv",
        "a\nx\né".encode()[:-1],
        [{"a": "x"}],
        f"is not UTF-8: byte 0xc3 in line 3; {OTHER_ENCODING}.",
    ),
    "UTF-16": (
        "a.jsonl",
        '{"a": 1}'.encode("utf-16"),
        [],
        "is UTF-16, not UTF-8; set data.encoding=utf-16, or save it again as UTF-8.",
    ),
    "UTF-16 without a mark": ("a.csv", "a,b".encode("utf-16-le"), [], "is UTF-16-LE, not UTF-8; set"),
    "column named twice": (
        "a.csv",
        "a,b,a\n1,2,3\n",
        [],
        "names the column 'a' twice in its header; rename one of them.",
    ),
    "column without a name": (
        "a.csv",
        ",a\n0,x\n",
        [],
        "has no name for column 1 in its header; name or remove the column.",
    ),
    "header without names": ("a.csv", " \nx\n", [], "has a header without names; name each column."),
    "header with an open quote": (
        "a.csv",
        '"a,b\n1,2\n',
        [],
        "has a header that cannot be read: line 1: a quoted field is never closed",
    ),
    "semicolons": (
        "a.csv",
        "a;b\n1;2\n",
        [],
        "parts its columns by ';' where ',' is needed; save it again so.",
    ),
    "tabs": ("a.csv", "a\tb\n1\t2\n", [], "parts its columns by '\\t' where ',' is needed; name it .tsv."),
    "commas": ("a.tsv", "a,b\n1,2\n", [], "parts its columns by ',' where '\\t' is needed; name it .csv."),
    "gzip cut off": (
        "a.jsonl.gz",
        PACKED[:-40],
        [{"a": 1}, {"a": 2}],
        "is cut off: its compressed data end too early; copy or download it again.",
    ),
    "zstd cut off": ("a.jsonl.zst", pa.compress(b"{}\n" * 9, "zstd", asbytes=True)[:-3], [], "is cut off:"),
    "gzip with other bytes behind": (
        "a.jsonl.gz",
        gzip.compress(b'{"a": 1}\n') + b"rest",
        [{"a": 1}],
        "has broken gzip data: Not a gzipped file (b're').",
    ),
    "gzip with a wrong sum": ("a.jsonl.gz", PACKED[:-8] + b"\0" * 8, [{"a": 1}, {"a": 2}], "has broken gzip"),
    "zstd broken": ("a.jsonl.zst", b"\x28\xb5\x2f\xfd" + b"x" * 50, [], "has broken zstd data: ZSTD"),
    "not compressed": (
        "a.jsonl.gz",
        '{"a": 1}',
        [],
        "is not compressed with gzip; take .gz off its name.",
    ),
    "compressed unsaid": ("a.jsonl", PACKED, [], "is compressed with gzip; add .gz to its name."),
    "compressed otherwise": ("a.csv.zst", PACKED, [], "is compressed with gzip; add .gz to its name."),
    "Parquet named JSON": ("a.json", to_parquet(TABLE), [], "is a Parquet file; name it .parquet."),
    "Arrow named Parquet": ("a.parquet", IPC_FILE, [], "is an Arrow file; name it .arrow."),
    "archive": ("a.csv", b"PK\x03\x04abcdefgh", [], "is a ZIP archive; unpack it and give a file in it."),
    "pointer": (
        "a.parquet",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        [],
        "is a Git LFS pointer without the data; fetch the data with `git lfs pull`.",
    ),
    "JSON named Parquet": ("a.parquet", '[{"a": 1}]' * 9, [], "is no whole Parquet file: Parquet magic"),
    "Parquet cut off": ("a.parquet", to_parquet(TABLE)[:-20], [], "is no whole Parquet file: Parquet magic"),
    "Arrow file cut off": ("a.arrow", IPC_FILE[:-20], [], "is no whole Arrow file:"),
    "Arrow stream cut off": (
        "a.arrow",
        STREAM[: len(STREAM) - 60],
        [{"a": 1}, {"a": 2}],
        "is no whole Arrow file: Expected to read 136 metadata bytes",
    ),
    "JSON named Arrow": ("a.arrow", '[{"a": 1}]', [], "is no whole Arrow file:"),
    "column twice in Parquet": (
        "a.parquet",
        to_parquet(pa.table([[1], [2]], names=["a", "a"])),
        [],
        "names the column 'a' twice; rename one of them.",
    ),
    "unknown extension": ("a.txt", "x", [], f": the extension '.txt' is unknown. Allowed: {KINDS}"),
    "misspelt extension": (
        "a.jsnl",
        "x",
        [],
        f": the extension '.jsnl' is unknown. Did you mean '.jsonl'? Allowed: {KINDS}",
    ),
    "unknown extension before .gz": ("a.txt.gz", "x", [], ": the extension '.txt' is unknown. Allowed:"),
    "no extension": ("a", "x", [], f": the name has no extension. Allowed: {KINDS}"),
    "no extension before .gz": ("a.gz", "x", [], ": the name tells gzip but not what is compressed, as in"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_unusable_file_is_explained_after_its_good_rows(case: str, tmp_path: Path, read: Read) -> None:
    name, content, expected, message = BROKEN_FILES[case]
    rows, fault = read(write_as_is(tmp_path, name, content))
    assert fault.startswith(message)
    assert rows == expected


@given(rows=ANY_ROWS, with_bom=st.booleans())
def test_json_and_jsonl_of_the_same_rows_read_equal(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], with_bom: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    bom = "\ufeff" if with_bom else ""
    lines = bom + "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    document = bom + json.dumps(rows, ensure_ascii=False, indent=1)
    for name, text in (("a.jsonl", lines), ("a.json", document)):
        path = write_as_is(folder, name, text)
        assert [row.fields for row in read_rows(path) if isinstance(row, Row)] == rows


def test_errors_name_the_key_that_holds_the_path(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(DataError) as error:
        next(read_rows(path, "data.sources[1].path"))
    assert str(error.value) == f"data.sources[1].path={str(path)!r} does not exist."


def test_unknown_encoding_names_a_close_one(write: Write) -> None:
    path = write("a.jsonl", "{}")
    for name in ("latin-11", "rot13", "a\0b", "undefined"):
        with pytest.raises(DataError, match=r"data\.encoding=.* is unknown\..* Allowed: ") as error:
            next(read_rows(path, encoding=name))
        assert ("Did you mean 'latin-1'?" in str(error.value)) == (name == "latin-11")


def test_bytes_outside_a_named_encoding_are_explained(write: Write, read: Read) -> None:
    fault = "is not ascii: byte 0xc3{}; name the file's encoding with data.encoding=..."
    rows, _ = read(write("a.jsonl", '{"a": 1}\n{"a": "é"}'), encoding="ascii")
    assert rows == [{"a": 1}, ("line 2", fault.format(""))]
    assert read(write("a.csv", "a\né"), encoding="ascii") == ([], f"{fault.format(' in line 2')}.")
    assert read(write("b.csv", "a\nb"), encoding="utf-16")[1].startswith("is not utf-16: ")


@pytest.mark.parametrize("name", ["list.json", "a.jsonl", "a.csv"])
def test_first_row_comes_before_the_file_is_written_to_its_end(name: str, tmp_path: Path) -> None:
    path, content = tmp_path / name, CONTENTS[name]
    os.mkfifo(path)
    first_row_was_read = threading.Event()
    was_early: list[bool] = []

    def feed() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(content[:-10])
            was_early.append(first_row_was_read.wait(timeout=10))
            pipe.write(content[-10:])

    feeder = threading.Thread(target=feed)
    feeder.start()
    rows = read_rows(path)
    first = next(rows)
    first_row_was_read.set()
    rest = list(rows)
    feeder.join()
    assert was_early == [True]
    assert [row.fields for row in [first, *rest] if isinstance(row, Row)] == FIVE_ROWS


@pytest.mark.parametrize(
    "name", ["a.json", "inside.json", "lines.json", "a.jsonl", "a.csv", "a.jsonl.gz", "a.csv.zst"]
)
def test_memory_does_not_grow_with_the_file(name: str, write: Write) -> None:
    rows = [{"number": str(number), "text": "some words " * 40} for number in range(6000)]
    lines = "\n".join(map(json.dumps, rows))
    contents = {
        "a.json": json.dumps(rows),
        "inside.json": json.dumps({"version": 1, "data": rows}),
        "lines.json": lines,
        "a.jsonl": lines,
        "a.csv": "number,text\n" + "\n".join(f"{row['number']},{row['text']}" for row in rows),
    }
    content = contents[name.removesuffix(".gz").removesuffix(".zst")]
    path, size = write(name, content), len(content)
    del rows, lines, contents, content
    next(read_rows(path))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(path)) == 6000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 2_500_000
    assert peak < size / 4
