from pathlib import Path

import pytest
import torch

from loralab.errors import DataError
from loralab.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)

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


def test_a_stop_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", checkpoint(1.0))
    (tmp_path / "last").rename(tmp_path / ".last.old")
    assert load_checkpoint(tmp_path / "last").progress["step"] == 1


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
    with pytest.raises(DataError, match=f"{name} is damaged"):
        load_checkpoint(tmp_path / "last")


def test_a_folder_without_checksums_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a checkpoint"):
        load_checkpoint(tmp_path)


def test_random_state_repeats_the_draws() -> None:
    state = random_state(CPU)
    first = torch.rand(3)
    restore_random_state(state, CPU)
    assert torch.equal(torch.rand(3), first)
