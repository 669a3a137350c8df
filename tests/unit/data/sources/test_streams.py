"""Hashes of files, and what reading leaves open."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loralab.data.sources import hash_file, read_rows
from loralab.errors import DataError

Write = Callable[[str, str], Path]


def test_hash_is_sha_256_of_the_bytes(write: Write) -> None:
    assert hash_file(write("a.jsonl", "abc")) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    text = "x" * 1_000_003
    assert hash_file(write("b.jsonl", text)) == hashlib.sha256(text.encode()).hexdigest()


def test_missing_file_cannot_be_hashed(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        hash_file(tmp_path / "a.jsonl", "data.val_path")
    assert str(error.value) == f"data.val_path={str(tmp_path / 'a.jsonl')!r} does not exist."


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_reading_that_is_given_up_leaves_no_file_open(name: str, write: Write) -> None:
    path = write(name, '{"a": 1}\n' * 50_000)
    rows = read_rows(path)
    next(rows)
    assert str(path) in [file.path for file in psutil.Process().open_files()]
    rows.close()
    del rows
    assert str(path) not in [file.path for file in psutil.Process().open_files()]


def test_folder_is_no_file_to_read(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        next(read_rows(tmp_path))
    assert str(error.value) == f"data.path={str(tmp_path)!r} is a folder; give one file in it."
    path = write("train.jsonl.gz", "{}")
    with pytest.raises(DataError, match=f"For example {str(path)!r}"):
        next(read_rows(tmp_path))
    with pytest.raises(DataError, match=r"b\.json' cannot be read: Not a directory\."):
        next(read_rows(path / "b.json"))
