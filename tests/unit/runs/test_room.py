"""A full disk: noticed before writing, or named where it fills up meanwhile; what was there stays whole."""

import errno
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.errors import StorageError
from loralab.runs import checkpoint as module
from loralab.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from loralab.runs.room import require_room, size_text

MIB = 2**20
Usage = namedtuple("Usage", ["total", "used", "free"])


def checkpoint(step: int, mib: int) -> Checkpoint:
    half = torch.zeros(mib * MIB // 8)
    return Checkpoint({"a": half.clone()}, {"b": half}, {"step": step})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a failed writer may hold its file


def test_a_small_disk_is_noticed_before_writing(small_disk: Path) -> None:
    save_checkpoint(small_disk / "step-1", checkpoint(1, 2))
    with pytest.raises(
        StorageError, match=r"disk is full: a checkpoint needs 3.4 MiB and \S+ [KM]iB are free"
    ):
        save_checkpoint(small_disk / "step-2", checkpoint(2, 3))
    assert [item.name for item in small_disk.iterdir()] == ["step-1"]
    assert load_checkpoint(small_disk / "step-1").progress == {"step": 1}


def test_a_small_disk_that_fills_up_meanwhile_leaves_the_old_checkpoint(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(small_disk / "step-1", checkpoint(1, 2))
    monkeypatch.setattr(module, "require_room", lambda folder, needed: None)
    with pytest.raises(StorageError, match=r"disk is full: a checkpoint needs 3.4 MiB"):
        save_checkpoint(small_disk / "step-2", checkpoint(2, 3))
    assert [item.name for item in small_disk.iterdir()] == ["step-1"]
    assert load_checkpoint(small_disk / "step-1").progress == {"step": 1}


def test_room_is_asked_for_with_a_margin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 1050))
    require_room(tmp_path, 1000)
    with pytest.raises(StorageError, match=r"needs 1.0 KiB and 1.0 KiB are free.*callbacks.keep_last"):
        require_room(tmp_path, 1001)


@pytest.mark.parametrize("writer", ["save_file", "sync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_in_the_middle_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, number: int
) -> None:
    save_checkpoint(tmp_path / "step-1", checkpoint(1, 1))

    def full(*args: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(module, writer, full)
    with pytest.raises(StorageError, match=r"is full: a checkpoint needs 1.3 MiB"):
        save_checkpoint(tmp_path / "step-1", checkpoint(2, 1))
    assert [item.name for item in tmp_path.iterdir()] == ["step-1"]
    assert load_checkpoint(tmp_path / "step-1").progress == {"step": 1}


def test_another_error_of_writing_is_not_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(module, "sync", fail)
    with pytest.raises(OSError, match="broken"):
        save_checkpoint(tmp_path / "step-1", checkpoint(1, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")]
)
def test_sizes_read_well(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text
