"""Writing rows to files of every kind, and reading them back."""

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loralab.data import writing
from loralab.data.sources import Row, read_rows
from loralab.data.writing import KINDS, RowWriter, kind_of
from loralab.errors import DataError

JSON_KINDS = [".json", ".jsonl", ".ndjson"]
COMPRESSED = [f"{kind}{codec}" for kind in (*JSON_KINDS, ".csv", ".tsv") for codec in (".gz", ".zst")]
ROWS = [
    {"text": 'a "quote", a\ttab\nand a line', "lang": "é\u2028"},
    {"text": "  ", "lang": "=1+1"},
    {"text": "[1, 2]", "lang": "\r"},
]


def write(path: Path, rows: list[Any], overwrite: bool = False) -> Path:
    with RowWriter(path, overwrite) as writer:
        for row in rows:
            writer.write(row)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    rows = list(read_rows(path))
    assert all(isinstance(row, Row) for row in rows)
    return [row.fields for row in rows]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [*KINDS, *COMPRESSED])
def test_text_comes_back_from_every_kind(tmp_path: Path, kind: str) -> None:
    assert read(write(tmp_path / f"rows{kind}", ROWS)) == ROWS


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.text(), VALUE), min_size=2), kind=st.sampled_from(JSON_KINDS))
def test_json_kinds_hold_any_json(tmp_path: Path, rows: list[dict[str, Any]], kind: str) -> None:
    assert read(write(tmp_path / f"rows{kind}", rows, overwrite=True)) == rows


def test_what_each_text_kind_looks_like(tmp_path: Path) -> None:
    rows = [{"a": "x,y", "b": None}, {"a": "z", "c": [1, {"é": True}], "d": False, "e": 0.5}]
    expected = {
        ".jsonl": '{"a": "x,y", "b": null}\n{"a": "z", "c": [1, {"é": true}], "d": false, "e": 0.5}\n',
        ".json": '[\n{"a": "x,y", "b": null},\n{"a": "z", "c": [1, {"é": true}], "d": false, "e": 0.5}\n]\n',
        ".csv": 'a,b,c,d,e\n"x,y",,,,\nz,,"[1, {""é"": true}]",false,0.5\n',
        ".tsv": 'a\tb\tc\td\te\nx,y\t\t\t\t\nz\t\t"[1, {""é"": true}]"\tfalse\t0.5\n',
    }
    for kind, text in expected.items():
        assert write(tmp_path / f"rows{kind}", rows).read_bytes().decode() == text


def test_compression_is_that_of_the_extension(tmp_path: Path) -> None:
    packed = write(tmp_path / "a.jsonl.gz", ROWS).read_bytes()
    assert [json.loads(line) for line in gzip.decompress(packed).decode().split("\n") if line] == ROWS
    packed = write(tmp_path / "a.json.ZST", ROWS).read_bytes()
    assert json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(packed)) == ROWS


def test_half_a_surrogate_pair_is_escaped_in_json_and_refused_elsewhere(tmp_path: Path) -> None:
    row = {"text": "é\ud83d"}
    path = write(tmp_path / "a.jsonl", [row])
    assert path.read_bytes() == b'{"text": "\\u00e9\\ud83d"}\n'
    for kind in (".csv", ".parquet", ".arrow"):
        with pytest.raises(DataError, match=r"Write \.jsonl"):
            write(tmp_path / f"a{kind}", [row])


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
def test_turns_keep_their_type_and_missing_fields_are_null(tmp_path: Path, kind: str) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]
    path = write(tmp_path / f"a{kind}", [{"messages": turns}, {"messages": [], "label": True}])
    table = pq.read_table(path) if kind == ".parquet" else pa.ipc.open_file(path).read_all()
    turn = pa.struct([("role", pa.string()), ("content", pa.string()), ("weight", pa.int64())])
    assert table.schema == pa.schema([("messages", pa.list_(turn)), ("label", pa.bool_())])
    assert read(path) == [
        {"messages": [{**turns[0], "weight": None}, turns[1]], "label": None},
        {"messages": [], "label": True},
    ]


def test_objects_of_different_fields_become_json_text(tmp_path: Path) -> None:
    rows = [{"tools": [{"f": {"x": 1}}]}, {"tools": [{"f": {"y": None}}]}]
    found = read(write(tmp_path / "a.parquet", rows))
    assert [json.loads(row["tools"]) for row in found] == [row["tools"] for row in rows]


def test_more_rows_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROWS_PER_BATCH", 3)
    rows = [{"n": number} for number in range(10)]
    path = write(tmp_path / "a.parquet", rows)
    assert pq.ParquetFile(path).num_row_groups == 4
    assert read(path) == rows


def test_dates_stay_in_tables_and_are_refused_in_text(tmp_path: Path) -> None:
    row = {"day": date(2024, 2, 29)}
    assert read(write(tmp_path / "a.parquet", [row])) == [row]
    for kind in (".jsonl", ".csv"):
        with pytest.raises(DataError, match="date"):
            write(tmp_path / f"a{kind}", [row])


@pytest.mark.parametrize(
    ("kind", "rows", "says"),
    [
        (".jsonl", [{"a": float("nan")}], "cannot be written as JSON"),
        (".csv", [{"a": b"x"}], "the field 'a' holds a bytes, which .csv has no text for"),
        (
            ".parquet",
            [{"a": "x"}, {"a": 1}],
            "the field 'a' holds a number where rows before it hold a string",
        ),
        (".arrow", [{"a": 2**70}], "the field 'a' cannot be written to .arrow"),
        (".parquet", [{"a": 0.5}, {"a": 2**60 + 1}], "the field 'a' cannot be written to .parquet"),
    ],
)
def test_what_a_kind_cannot_hold_is_refused_and_nothing_is_left(
    tmp_path: Path, kind: str, rows: list[Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        write(tmp_path / f"a{kind}", rows)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(KeyboardInterrupt), RowWriter(path, overwrite=True) as writer:
        writer.write({"text": "new"})
        raise KeyboardInterrupt
    assert read(path) == ROWS
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_appears_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with RowWriter(path) as writer:
        writer.write(ROWS[0])
        assert not path.exists()
        whole = writer.finish()
        assert read(whole) == ROWS[:1]
        assert not path.exists()
    assert read(path) == ROWS[:1]
    assert writer.num_rows == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", (".jsonl", None)),
        ("a.b.CSV.GZ", (".csv", "gzip")),
        ("a.json.zst", (".json", "zstd")),
        ("a.parquet", (".parquet", None)),
    ],
)
def test_kind_is_told_by_the_name(name: str, expected: tuple[str, str | None]) -> None:
    assert kind_of(Path(name)) == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.jsnl", r"the extension '.jsnl' is unknown. Did you mean '.jsonl'\?"),
        ("a", "no extension"),
        ("a.gz", "no extension"),
        ("a.parquet.gz", "Use .parquet alone"),
        ("folder.jsonl", "is a folder"),
        ("nowhere/a.jsonl", "the folder '.*nowhere' does not exist"),
        ("there.jsonl", "exists already. Give another name, or replace it with --force"),
    ],
)
def test_targets_that_cannot_be_written(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "there.jsonl").write_text("old")
    with pytest.raises(DataError, match=says):
        RowWriter(tmp_path / name)


def test_an_empty_list_is_still_json(tmp_path: Path) -> None:
    assert write(tmp_path / "a.json", []).read_text() == "[]\n"
