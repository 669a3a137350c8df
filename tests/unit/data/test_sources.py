"""Reading raw rows from JSON and JSONL files."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.sources import Row, read_rows
from loralab.errors import DataError

ROWS = st.lists(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()), min_size=1)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(path: Path) -> str:
    with pytest.raises(DataError) as error:
        read_rows(path)
    message = str(error.value)
    assert message.startswith(f"data.path={str(path)!r}")
    assert "\n" not in message
    return message.removeprefix(f"data.path={str(path)!r}").strip()


def test_json_list_counts_rows_from_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", '[\n {"text": "é"},\n\n {"text": "b"}\n]')
    assert read_rows(path) == [Row(1, {"text": "é"}, "row"), Row(2, {"text": "b"}, "row")]


def test_jsonl_skips_blank_lines_and_counts_file_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '\n{"text": "a"}\r\n  \n{"text": "b"}')
    assert read_rows(path) == [Row(2, {"text": "a"}, "line"), Row(4, {"text": "b"}, "line")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"version": 1, "data": [{"text": "a"}], "tags": ["x"]}'),
        ("a.json", '{"text": "a"}'),
        ("a.json", '\ufeff[{"text": "a"}]'),
        ("a.jsonl", '\ufeff{"text": "a"}\n'),
        ("a.NDJSON", '{"text": "a"}\n'),
    ],
)
def test_single_row_in_each_layout(tmp_path: Path, name: str, content: str) -> None:
    assert [row.fields for row in read_rows(write(tmp_path, name, content))] == [{"text": "a"}]


def test_json_file_with_one_object_per_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", '{"text": "a"}\n\n{"text": "b"}\n')
    assert read_rows(path) == [Row(1, {"text": "a"}), Row(3, {"text": "b"})]


def test_single_line_with_two_lists_of_objects_is_one_row(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.json", '{"prompt": [{"role": "user"}], "completion": [{"role": "assistant"}]}\n'
    )
    assert [list(row.fields) for row in read_rows(path)] == [["prompt", "completion"]]


def test_line_separator_inside_a_string_does_not_end_the_row(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a\u2028b"}\n')
    assert read_rows(path) == [Row(1, {"text": "a\u2028b"})]


@given(rows=ROWS, with_bom=st.booleans())
def test_json_and_jsonl_of_the_same_rows_read_equal(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], with_bom: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    bom = "\ufeff" if with_bom else ""
    lines = write(folder, "a.jsonl", bom + "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    document = write(folder, "a.json", bom + json.dumps(rows, ensure_ascii=False, indent=1))
    assert [row.fields for row in read_rows(lines)] == rows
    assert [row.fields for row in read_rows(document)] == rows


def test_missing_file_names_a_close_one(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", '{"text": "a"}')
    assert fault(tmp_path / "trian.jsonl") == "does not exist. Did you mean 'train.jsonl'?"
    assert fault(tmp_path / "zzz.json") == "does not exist."


def test_missing_folder_is_named(tmp_path: Path) -> None:
    message = fault(tmp_path / "none" / "a.json")
    assert message == f"does not exist. Its folder {str(tmp_path / 'none')!r} does not exist either."


def test_folder_names_a_file_in_it(tmp_path: Path) -> None:
    assert fault(tmp_path) == "is a folder; give one file in it."
    path = write(tmp_path, "train.jsonl", '{"text": "a"}')
    assert fault(tmp_path) == f"is a folder; give one file in it. For example {str(path)!r}."


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", "", "is empty; at least one row is needed."),
        ("a.jsonl", "\ufeff \n\n", "is empty; at least one row is needed."),
        ("a.json", "[]", "has no rows; at least one is needed."),
        ("a.json", '{"data": []}', "has no rows; at least one is needed."),
        ("a.json", '[\n{"a": 1}\n{"a": 2}]', "has broken JSON at line 3, column 1: Expecting ',' delimiter."),
        ("a.jsonl", '{"a": 1}\n\n{"a" 2}', "has broken JSON at line 3, column 6: Expecting ':' delimiter."),
        ("a.json", '{"a": 1}\n{"a" 2}', "has broken JSON at line 2, column 6: Expecting ':' delimiter."),
        ("a.jsonl", '{"a": 1}\n[1]', "line 2: a list where an object with fields is needed."),
        ("a.json", '[{"a": 1}, "b"]', "row 2: a string where an object with fields is needed."),
        ("a.json", "3", "holds a number; a list of objects is needed."),
        (
            "a.json",
            '{\n"a": [{}], "b": [{}]}',
            "holds 2 lists of objects ('a', 'b'); keep one list in a file.",
        ),
        (
            "a.json",
            '{\n"a": 1}',
            "holds an object without a list of objects in it; a list of objects is needed.",
        ),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": "\xe9"}',
            "is not UTF-8: byte 0xe9 in line 2; save the file again as UTF-8.",
        ),
        ("a.txt", "x", ": the extension '.txt' is unknown. Allowed: .json, .jsonl, .ndjson."),
        (
            "a.jsnl",
            "x",
            ": the extension '.jsnl' is unknown. Did you mean '.jsonl'? Allowed: .json, .jsonl, .ndjson.",
        ),
        ("a", "x", ": the name has no extension. Allowed: .json, .jsonl, .ndjson."),
    ],
)
def test_unusable_file_is_explained(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    assert fault(write(tmp_path, name, content)) == expected


def test_document_named_jsonl_gets_the_fix(tmp_path: Path) -> None:
    message = fault(write(tmp_path, "a.jsonl", '[\n{"a": 1}\n]'))
    assert message.startswith("has broken JSON at line 1, column 2")
    assert message.endswith("If the file is one JSON document, name it .json.")


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    message = fault(write(tmp_path, "a.jsonl", '{"a": 1}\n' + "[" * 200_000))
    assert message.startswith("has JSON from line 2 on that cannot be read: maximum recursion depth exceeded")


def test_unreadable_file_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a.json", "[]")

    def deny(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    # The superuser may read every file, so changing the mode would test nothing there.
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert fault(path) == "cannot be opened: no permission to read it; try `chmod u+r` on it."


def test_other_system_error_is_explained(tmp_path: Path) -> None:
    file = write(tmp_path, "a.json", "[]")
    assert fault(file / "b.json") == "cannot be read: Not a directory."
