"""Which files a path stands for."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from loralab.data.sources import expand_paths, is_hub, read_rows
from loralab.errors import DataError

Write = Callable[[str, str], Path]


@pytest.fixture
def tree(write: Write, tmp_path: Path) -> Path:
    """A folder with readable, hidden and other files."""
    for name in ("b.jsonl", "a.CSV", "sub/c.json.gz", "sub/deep/d.parquet"):
        write(name, "{}")
    for name in (".hidden.jsonl", ".git/e.jsonl", "README.md", "notes.txt", "sub/dataset_info.json"):
        write(name, "{}")
    return tmp_path


def names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def fault(path: Any, key: str = "data.path") -> str:
    with pytest.raises(DataError) as error:
        expand_paths(path, key)
    message = str(error.value)
    assert message.startswith(key)
    assert "\n" not in message
    return message.removeprefix(f"{key}={str(path)!r}").strip()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("b.jsonl", ["b.jsonl"]),
        ("notes.txt", ["notes.txt"]),
        (".", ["a.CSV", "b.jsonl", "sub/c.json.gz", "sub/deep/d.parquet"]),
        ("*", ["a.CSV", "b.jsonl"]),
        ("*.[jx]*", ["b.jsonl"]),
        ("**/*.json*", ["b.jsonl", "sub/c.json.gz"]),
        ("**", ["a.CSV", "b.jsonl", "sub/c.json.gz", "sub/deep/d.parquet"]),
        ("s?b", ["sub/c.json.gz", "sub/deep/d.parquet"]),
        (["sub", "b.jsonl", "*.jsonl", "./b.jsonl"], ["b.jsonl", "sub/c.json.gz", "sub/deep/d.parquet"]),
    ],
)
def test_path_stands_for_readable_files_in_order(
    given: str | list[str], expected: list[str], tree: Path
) -> None:
    path = str(tree / given) if isinstance(given, str) else [str(tree / each) for each in given]
    assert names(expand_paths(path), tree) == expected


def test_name_with_brackets_is_a_file_before_it_is_a_glob(write: Write) -> None:
    path = write("a[1].jsonl", "{}")
    assert expand_paths(str(path)) == [path]


def test_linked_file_is_read_once_and_linked_circle_ends(write: Write, tmp_path: Path) -> None:
    path = write("sub/a.jsonl", "{}")
    (tmp_path / "sub" / "z.jsonl").symlink_to(path)
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert expand_paths(str(tmp_path)) == [path]


def test_home_folder_is_found(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write("a.jsonl", "{}")
    assert expand_paths("~/a.jsonl") == [path]


def test_folder_that_datasets_saved_gives_its_rows_once(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_list([{"a": 1}, {"a": 2}])
    saved.save_to_disk(tmp_path / "one")
    (tmp_path / "one" / "cache-0123.arrow").write_bytes(b"left behind by map()")
    paths = expand_paths(str(tmp_path / "one"))
    assert names(paths, tmp_path) == ["one/data-00000-of-00001.arrow"]
    assert [row.line for row in read_rows(paths[0])] == [1, 2]

    datasets.DatasetDict(train=saved, test=saved).save_to_disk(tmp_path / "two")
    expected = "holds the splits 'test', 'train' of one dataset; give one of these folders."
    assert fault(str(tmp_path / "two")) == expected


def test_missing_file_names_a_close_one(write: Write, tmp_path: Path) -> None:
    write("train.jsonl", "{}")
    assert fault(str(tmp_path / "trian.jsonl")) == "does not exist. Did you mean 'train.jsonl'?"
    assert fault(str(tmp_path / "zzz.json")) == "does not exist."
    nowhere = tmp_path / "none"
    assert (
        fault(str(nowhere / "a.json"))
        == f"does not exist. Its folder {str(nowhere)!r} does not exist either."
    )


def test_glob_without_a_match_names_what_is_close(write: Write, tmp_path: Path) -> None:
    write("train-0.jsonl", "{}")
    write("notes.txt", "x")
    assert fault(str(tmp_path / "trian-*.jsonl")) == "matches no file. Did you mean 'train-0.jsonl'?"
    assert fault(str(tmp_path / "**" / "x*")) == "matches no file."
    missing = tmp_path / "trian-0.jsonl"
    assert fault(str(missing / "*")) == (
        f"matches no file. {str(missing)!r} does not exist. Did you mean 'train-0.jsonl'?"
    )
    expected = (
        f"matches no file of a known kind, only {str(tmp_path / 'notes.txt')!r}. Allowed: .json, .jsonl,"
    )
    assert fault(str(tmp_path / "*.txt")).startswith(expected)


def test_folder_without_a_readable_file_is_refused(write: Write, tmp_path: Path) -> None:
    write("notes.txt", "x")
    write(".hidden.jsonl", "{}")
    assert fault(str(tmp_path)).startswith(
        "is a folder without a file of a known kind in it. Allowed: .json,"
    )


def test_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "a.jsonl"
    link.symlink_to(tmp_path / "gone")
    expected = f"is a symbolic link to {str(tmp_path / 'gone')!r}, which does not exist."
    assert fault(str(link)) == expected
    for path in (tmp_path, tmp_path / "*.jsonl"):
        with pytest.raises(DataError) as error:
            expand_paths(str(path))
        assert str(error.value) == f"data.path={str(link)!r} {expected}"
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "b.jsonl")
    assert fault(str(tmp_path / "b.jsonl")) == "cannot be read: Too many levels of symbolic links."


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "data.path: '' is no path; give a file, folder or glob as text."),
        ([], "data.path=[] names no file; give a file, folder, glob, or a list of them."),
        (None, "data.path=None names no file; give a file, folder, glob, or a list of them."),
        (3, "data.path=3 names no file; give a file, folder, glob, or a list of them."),
        (["a", 3], None),
        ("a\0b", "data.path='a\\x00b' cannot be read: embedded null byte."),
        ("x" * 300, f"data.path='{'x' * 300}' cannot be read: File name too long."),
        (
            ["hub:a/b"],
            "data.path: 'hub:a/b' cannot stand in a list of files. Give each its own entry: "
            "data.sources=[{path:'hub:a/b'},{path:FILE}].",
        ),
    ],
)
def test_path_that_is_none_is_refused(path: Any, expected: str | None) -> None:
    with pytest.raises(DataError) as error:
        expand_paths(path)
    assert expected is None or str(error.value) == expected


def test_errors_name_the_key_that_holds_the_path(tmp_path: Path) -> None:
    assert fault(str(tmp_path / "a.json"), "data.sources[1].path") == "does not exist."


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that may not be entered and a file that may not be read, for an ordinary user."""
    is_superuser = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inner").mkdir()
        (folder / "a.jsonl").write_text("{}")
        (folder / "inner" / "b.jsonl").write_text("{}")
        folder.chmod(0o755)
        (folder / "a.jsonl").chmod(0)
        (folder / "inner").chmod(0)
        if is_superuser:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_superuser:
                os.seteuid(0)
            (folder / "inner").chmod(0o755)


def test_closed_files_and_folders_are_explained(closed: Path) -> None:
    inner, file = closed / "inner", closed / "a.jsonl"
    no_entry = f"data.path={str(inner)!r} cannot be opened: no permission to read it; try `chmod u+rx` on it."
    for path in (closed, inner):
        with pytest.raises(DataError) as error:
            expand_paths(str(path))
        assert str(error.value) == no_entry
    with pytest.raises(DataError) as error:
        next(read_rows(file))
    expected = f"data.path={str(file)!r} cannot be opened: no permission to read it; try `chmod u+r` on it."
    assert str(error.value) == expected
    assert fault(str(inner / "b.jsonl")).startswith("cannot be opened: no permission to read it")


@pytest.mark.parametrize(
    ("path", "expected"), [("hub:a/b", True), ("a/b", False), (["hub:a/b"], False), (None, False)]
)
def test_hub_datasets_are_told_by_their_prefix(path: object, expected: bool) -> None:
    assert is_hub(path) is expected


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("data.sources[2].path", "data.sources=[{path:'hub:a/b'},{path:FILE}]."),
        ("data.contamination.benchmarks", "data.contamination.benchmarks=[{path:'hub:a/b'},{path:FILE}]."),
        ("data.val_path", "Give it alone, or a downloaded copy of its files."),
    ],
)
def test_a_dataset_among_files_is_sent_where_it_is_not_trained_on(key: str, advice: str) -> None:
    with pytest.raises(DataError) as error:
        expand_paths(["hub:a/b", "c.jsonl"], key)
    assert str(error.value).startswith(f"{key}: 'hub:a/b' cannot stand in a list of files. ")
    assert str(error.value).endswith(advice)
    assert ("data.sources" in str(error.value)) == key.startswith("data.sources")
