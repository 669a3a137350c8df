import errno
from pathlib import Path

import pytest
import torch

from loralab.errors import DataError
from loralab.runs import checkpoint as module
from loralab.runs.checkpoint import Checkpoint, checkpoint_bytes, load_checkpoint, save_checkpoint
from loralab.runs.generators import random_state

CPU = torch.device("cpu")


def checkpoint(value: float) -> Checkpoint:
    return Checkpoint(
        weights={"a.lora_A": torch.full((2, 3), value)},
        state={"optimizer": {"state": {0: {"step": torch.tensor(value)}}}, "random": random_state(CPU)},
        progress={"step": int(value), "best": {}},
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", checkpoint(3.0))
    loaded = load_checkpoint(tmp_path / "last")
    assert torch.equal(loaded.weights["a.lora_A"], torch.full((2, 3), 3.0))
    assert loaded.state["optimizer"]["state"][0]["step"] == 3.0
    assert loaded.progress == {"step": 3, "best": {}}


def test_a_new_checkpoint_replaces_the_old_and_leaves_nothing_else(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        save_checkpoint(tmp_path / "last", checkpoint(value))
    assert load_checkpoint(tmp_path / "last").progress["step"] == 2
    assert [item.name for item in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("name", ["adapter.safetensors", "trainer_state.pt", "progress.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_noticed_and_the_file_named(tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(tmp_path / "last", checkpoint(1.0))
    file = tmp_path / "last" / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
    with pytest.raises(DataError, match=f"{name} is {'missing' if damage == 'remove' else 'damaged'}"):
        load_checkpoint(tmp_path / "last")


def test_a_file_that_cannot_be_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "last", checkpoint(3.0))

    def broken(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "sha256_of", broken)
    with pytest.raises(DataError, match=r"adapter.safetensors cannot be read: Input/output error"):
        load_checkpoint(tmp_path / "last")


def test_a_folder_without_checksums_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "3", '{"progress.json": "0"}', "{"])
def test_damaged_checksums_are_no_checkpoint(tmp_path: Path, content: str) -> None:
    save_checkpoint(tmp_path / "last", checkpoint(1.0))
    (tmp_path / "last" / "checksums.json").write_text(content)
    with pytest.raises(DataError, match=r"checksums.json is damaged"):
        load_checkpoint(tmp_path / "last")


def test_the_size_is_known_before_writing(tmp_path: Path) -> None:
    large = Checkpoint({"a": torch.zeros(1000, 500)}, {"b": [torch.zeros(3000, 500)]}, {})
    save_checkpoint(tmp_path / "last", large)
    written = sum(file.stat().st_size for file in (tmp_path / "last").iterdir())
    assert written <= checkpoint_bytes(large) <= 1.05 * written


def test_nothing_but_tensors_and_plain_values_is_read(tmp_path: Path) -> None:
    bad = Checkpoint({"a": torch.zeros(1)}, {"path": tmp_path}, {})
    save_checkpoint(tmp_path / "last", bad)
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        load_checkpoint(tmp_path / "last")
