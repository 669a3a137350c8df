"""The checkpoints of a run: which counts, what is kept, and what a kill leaves."""

from pathlib import Path

import pytest
import torch

from loralab.errors import DataError
from loralab.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from loralab.runs.series import (
    clear_leftovers,
    drop_after,
    load_best,
    load_newest,
    point,
    prune,
    saved_steps,
    step_dir,
)


def save(folder: Path, step: int, best: int, val_loss: float = 1.0, val_step: int | None = None) -> None:
    progress = {
        "step": step,
        "val_loss": val_loss,
        "val_step": step if val_step is None else val_step,
        "best": {"step": best, "val_loss": 0.5},
    }
    save_checkpoint(step_dir(folder, step), Checkpoint({"a": torch.full((2,), float(step))}, {}, progress))


def damage(folder: Path, step: int) -> None:
    path = step_dir(folder, step) / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def test_the_newest_counts_by_number_not_by_letters(tmp_path: Path) -> None:
    for step in (8, 100, 20):
        save(tmp_path, step, 8)
    assert saved_steps(tmp_path) == [100, 20, 8]
    newest = load_newest(tmp_path, print)
    assert newest is not None
    assert newest.progress["step"] == 100
    assert load_newest(tmp_path / "absent", print) is None
    before = load_newest(tmp_path, print, before=99)
    assert before is not None
    assert before.progress["step"] == 20


def test_damaged_ones_are_passed_over_loudly(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        save(tmp_path, step, 4)
    damage(tmp_path, 12)
    (step_dir(tmp_path, 8) / "checksums.json").unlink()
    said: list[str] = []
    loaded = load_newest(tmp_path, said.append)
    assert loaded is not None
    assert loaded.progress["step"] == 4
    assert "step-12/adapter.safetensors is damaged" in said[0]
    assert "step-8 is not a checkpoint" in said[1]
    assert said[2] == "warning: going on from step-4; what was logged after it is written again."
    damage(tmp_path, 4)
    with pytest.raises(
        DataError, match=r"no checkpoint in .* is whole. Restore one .* or remove that folder"
    ):
        load_newest(tmp_path, said.append)


def test_the_last_ones_and_their_best_are_kept(tmp_path: Path) -> None:
    for step, best in ((4, 4), (8, 4), (12, 4), (16, 16)):
        save(tmp_path, step, best)
    prune(tmp_path, keep_last=1)
    assert saved_steps(tmp_path) == [16]
    for step, best in ((20, 16), (24, 16), (28, 28)):
        save(tmp_path, step, best)
    prune(tmp_path, keep_last=2)
    # If step-28 is lost, the best that step-24 knows is still there.
    assert saved_steps(tmp_path) == [28, 24, 16]
    drop_after(tmp_path, 24)
    assert saved_steps(tmp_path) == [24, 16]
    assert {item.name for item in tmp_path.iterdir()} == {"step-24", "step-16"}


def test_a_damaged_best_gives_way_to_the_next_best(tmp_path: Path) -> None:
    save(tmp_path, 4, 4, val_loss=0.9)
    save(tmp_path, 8, 8, val_loss=0.5)
    save(tmp_path, 12, 8, val_loss=0.8)
    save(tmp_path, 14, 8, val_loss=0.1, val_step=12)  # its weights are not those that were measured
    said: list[str] = []
    assert load_best(tmp_path, 8, said.append).progress["step"] == 8
    damage(tmp_path, 8)
    assert load_best(tmp_path, 8, said.append).progress["step"] == 12
    assert "step-8/adapter.safetensors is damaged" in said[0]


def test_names_lead_to_checkpoints(tmp_path: Path) -> None:
    for step in (4, 8):
        save(tmp_path, step, 4)
        point(tmp_path, "last", step)
    assert load_checkpoint(tmp_path / "last").progress["step"] == 8
    assert {item.name for item in tmp_path.iterdir()} == {"last", "step-4", "step-8"}


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, 4, 4)
    step_dir(tmp_path, 4).rename(tmp_path / ".step-4.old")
    clear_leftovers(tmp_path)
    assert load_checkpoint(step_dir(tmp_path, 4)).progress["step"] == 4


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    save(tmp_path, 4, 4)
    for name in (".step-8.tmp", ".step-4.old", ".step-2.gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter.safetensors").write_bytes(b"half")
    (tmp_path / ".last.tmp").symlink_to("step-4")
    clear_leftovers(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["step-4"]
    assert load_checkpoint(step_dir(tmp_path, 4)).progress["step"] == 4
