"""`loralab data split` and `loralab data dedup`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loralab.cli import rewriting
from loralab.data.sources import Row, read_rows

Run = Callable[..., Any]
PARTS = ("train", "val", "test")


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    """Rows with a field that no form knows and another order of fields than the form's."""
    return [
        {"id": n, "completion": f"answer {n}", "prompt": f"request {n}", "topic": f"t{n % 5}", **more}
        for n in range(count)
    ]


def read(path: Path) -> list[dict[str, Any]]:
    rows = list(read_rows(path))
    assert all(isinstance(row, Row) for row in rows)
    return [row.fields for row in rows]  # type: ignore[union-attr]


def split_files(folder: Path, kind: str = "jsonl") -> dict[str, list[dict[str, Any]]]:
    return {part: read(folder / f"{part}.{kind}") for part in PARTS}


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


def test_a_split_deals_every_row_once_and_unchanged(run: Run, write_rows: Run, tmp_path: Path) -> None:
    rows = numbered(40)
    write_rows("rows.jsonl", rows)
    result = run("split", "rows.jsonl", "--out", "parts", "val_fraction=0.1", "test_fraction=0.2")
    parts = split_files(tmp_path / "parts")
    assert {part: len(found) for part, found in parts.items()} == {"train": 28, "val": 4, "test": 8}
    together = [row for found in parts.values() for row in found]
    assert sorted(together, key=lambda row: row["id"]) == rows
    assert all(ids(found) == sorted(ids(found)) for found in parts.values())
    assert (tmp_path / "parts/val.jsonl").read_text().splitlines()[0] == json.dumps(parts["val"][0])
    assert result.output.splitlines() == [
        "train  28 rows  parts/train.jsonl",
        "val    4 rows  parts/val.jsonl",
        "test   8 rows  parts/test.jsonl",
        "rows: 40 read = 40 kept + 0 left out; 40 written",
        "disjoint: no content hash stands in two files, read back from the files",
    ]


def test_the_seed_decides_the_split(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows("rows.jsonl", numbered(60))
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run("split", "rows.jsonl", "--out", out, "--seed", seed)
    first, same, other = (split_files(tmp_path / out) for out in "abc")
    assert first == same
    assert first["test"] != other["test"]


def test_exact_duplicates_never_stand_in_two_files(run: Run, write_rows: Run, tmp_path: Path) -> None:
    # The same text in ten pairs of rows that differ only in what no form reads.
    write_rows("rows.jsonl", [*numbered(10), *[{**row, "id": row["id"] + 100} for row in numbered(10)]])
    result = run("split", "rows.jsonl", "--out", "parts", "val_fraction=0.3", "test_fraction=0.3")
    parts = split_files(tmp_path / "parts")
    assert sorted(number for found in parts.values() for number in ids(found)) == list(range(10))
    assert "rows.jsonl line 11: the same as rows.jsonl line 1" in result.output
    assert "rows: 20 read = 10 kept + 10 left out; 10 written" in result.output
    kept = run(
        "split", "rows.jsonl", "--out", "all", "val_fraction=0.3", "test_fraction=0.3", "dedup.exact=false"
    )
    assert "rows: 20 read = 20 kept + 0 left out; 20 written" in kept.output
    prompts = {
        part: {row["prompt"] for row in found} for part, found in split_files(tmp_path / "all").items()
    }
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = len(prompts[one] & prompts[other])
        expected = f"not disjoint: {shared} contents stand in both {one} and {other}"
        assert (expected in kept.output.splitlines()) == (shared > 0)
    assert "not disjoint" in kept.output


def test_groups_stay_together(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows("rows.jsonl", numbered(50))
    words = ("split.method=grouped", "split.by=topic", "val_fraction=0.2", "test_fraction=0.2")
    assert run("split", "rows.jsonl", "--out", "parts", *words).exit_code == 0
    topics = [{row["topic"] for row in found} for found in split_files(tmp_path / "parts").values()]
    assert [len(found) for found in topics] == [3, 1, 1]
    assert len(set.union(*topics)) == 5


def test_rows_of_several_files_come_from_where_they_stand(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows("a.jsonl", numbered(6))
    write_rows(
        "b.jsonl", [{**row, "prompt": f"{row['prompt']} more", "id": row["id"] + 50} for row in numbered(6)]
    )
    run("split", "a.jsonl", "b.jsonl", "--out", "parts", "split.method=stratified", "split.by=source",
        "val_fraction=0.17", "test_fraction=0.17")  # fmt: skip
    parts = split_files(tmp_path / "parts")
    assert [sum(number < 50 for number in ids(parts[part])) for part in PARTS] == [4, 1, 1]
    assert [len(parts[part]) for part in PARTS] == [8, 2, 2]


@pytest.mark.parametrize("kind", ["json", "csv.gz", "parquet", ".arrow"])
def test_other_kinds_of_files(run: Run, write_rows: Run, tmp_path: Path, kind: str) -> None:
    rows = [{**row, "id": str(row["id"])} for row in numbered(12)]
    write_rows("rows.jsonl", rows)
    assert run("split", "rows.jsonl", "--out", "parts", "--kind", kind).exit_code == 0
    parts = split_files(tmp_path / "parts", kind.lstrip("."))
    assert sorted((row for found in parts.values() for row in found), key=lambda row: int(row["id"])) == rows


def test_faulty_rows_stop_a_split_or_are_counted(
    run: Run, faulty: Path, write_rows: Run, tmp_path: Path
) -> None:
    write_rows("rows.jsonl", numbered(8))
    result = run("split", "faulty.jsonl", "rows.jsonl", "--out", "parts")
    assert result.exit_code == 2
    assert "5 rows cannot be used; leave such rows out with on_error=skip" in result.stderr
    assert "faulty.jsonl line 3: the field 'prompt' holds a number" in result.stderr
    assert list((tmp_path / "parts").iterdir()) == []
    result = run("split", "faulty.jsonl", "rows.jsonl", "--out", "parts", "on_error=skip")
    assert "rows: 14 read = 9 kept + 5 left out; 9 written" in result.output


def test_no_part_is_replaced_without_force(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows("rows.jsonl", numbered(8))
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/test.jsonl").write_text("old")
    assert run("split", "rows.jsonl", "--out", "parts").exit_code == 2
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["test.jsonl"]
    assert run("split", "rows.jsonl", "--out", "parts", "--force").exit_code == 0


def test_a_lost_row_is_an_error(
    run: Run, write_rows: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows("rows.jsonl", numbered(8))
    whole = rewriting.hold_out

    def hold_out_and_change(*arguments: Any) -> Any:
        write_rows("rows.jsonl", numbered(7))
        return whole(*arguments)

    monkeypatch.setattr(rewriting, "hold_out", hold_out_and_change)
    result = run("split", source.name, "--out", "parts")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: the files changed while they were read. Start again.\n",
    )
    assert list((tmp_path / "parts").iterdir()) == []


def test_changed_content_is_an_error(
    run: Run, write_rows: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows("rows.jsonl", numbered(8))
    whole = rewriting.hold_out

    def hold_out_and_change(*arguments: Any) -> Any:
        write_rows("rows.jsonl", numbered(8, prompt="all the same"))
        return whole(*arguments)

    monkeypatch.setattr(rewriting, "hold_out", hold_out_and_change)
    result = run("split", source.name, "--out", "parts")
    assert result.exit_code == 2
    assert "row 1 of 'parts/train.jsonl' would not read back" in result.stderr
    assert list((tmp_path / "parts").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rows.jsonl", "--out", "parts", "--kind", "xml"], "the extension '.xml' is unknown"),
        (["rows.jsonl", "--out", "rows.jsonl"], "--out 'rows.jsonl' is a file. Give a folder."),
        (["rows.jsonl", "--out", "parts", "privacy.action=mask"], "privacy.action=mask changes rows"),
        (["rows.jsonl", "--out", "parts", "max_examples=2"], "2 usable rows are too few"),
        (["rows.jsonl", "other.jsonl", "--out", "parts"], "the rows differ in form: rows.jsonl is"),
        (["rows.jsonl", "--out", "parts", "split.method=grouped"], "needs data.split.by"),
        (["rows.jsonl", "--out", "parts", "split.method=grouped", "split.by=x"], "the field 'x'"),
    ],
)
def test_wrong_words_are_refused(run: Run, write_rows: Run, words: list[str], says: str) -> None:
    write_rows("rows.jsonl", numbered(8))
    write_rows("other.jsonl", [{"text": "a"}])
    result = run("split", *words)
    assert result.exit_code == 2
    assert says in result.stderr


def test_dedup_keeps_the_first_of_equal_rows(run: Run, write_rows: Run, tmp_path: Path) -> None:
    a, b, c = numbered(3)
    write_rows("rows.jsonl", [a, b, {**a, "id": 7}, c, {**c, "id": 8}, {**a, "id": 9}])
    result = run("dedup", "rows.jsonl", "out.jsonl")
    assert read(tmp_path / "out.jsonl") == [a, b, c]
    for line, first in ((3, 1), (5, 4), (6, 1)):
        assert f"rows.jsonl line {line}: the same as rows.jsonl line {first}" in result.output
    assert result.output.splitlines()[-2:] == [
        "kept  3 rows  out.jsonl",
        "rows: 6 read = 3 kept + 3 left out; 3 written",
    ]


@pytest.mark.parametrize(("near", "kept"), [("none", [0, 1, 2]), ("prompt", [0]), ("conversation", [0, 2])])
def test_dedup_compares_what_is_asked_for(
    run: Run, write_rows: Run, tmp_path: Path, near: str, kept: list[int]
) -> None:
    long = (
        "the quick brown fox jumps over the lazy dog while seven wizards watch from the old stone bridge " * 3
    )
    rows = [
        {"id": 0, "prompt": long, "completion": "yes"},
        {"id": 1, "prompt": f"{long} !", "completion": "Yes."},
        {"id": 2, "prompt": long.upper(), "completion": " ".join(f"word{n}" for n in range(90))},
    ]
    write_rows("rows.jsonl", rows)
    result = run("dedup", "rows.jsonl", "out.json", f"dedup.near={near}")
    assert ids(read(tmp_path / "out.json")) == kept
    assert (near == "none") == ("nearly the same as rows.jsonl line 1" not in result.output)


def test_dedup_reads_two_files_and_never_its_own(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows("a.jsonl", numbered(3))
    write_rows("b.jsonl", numbered(4))
    result = run("dedup", "a.jsonl", "b.jsonl", "c.parquet")
    assert "b.jsonl line 1: the same as a.jsonl line 1" in result.output.replace(f"{tmp_path}/", "")
    assert ids(read(tmp_path / "c.parquet")) == [0, 1, 2, 3]
    assert "'c.parquet' is also read" in run("dedup", ".", "c.parquet", "--force").stderr
