"""Checkpoint folders: adapter and trainer state only, whole or not at all, checked when read."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loralab.errors import DataError

WEIGHTS = "adapter.safetensors"
STATE = "trainer_state.pt"
PROGRESS = "progress.json"
CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on as if it had never stopped."""

    weights: dict[str, Tensor]
    """Float32 master weights of the adapter, by parameter name."""
    state: dict[str, Any]
    """State of the optimizer, of the random generators and of the adapter's method."""
    progress: dict[str, Any]
    """Finished steps, best validation so far, counters."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint under a temporary name, syncs it and renames it into place."""
    scratch, old = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.old")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    save_file(checkpoint.weights, scratch / WEIGHTS)
    torch.save(checkpoint.state, scratch / STATE)
    (scratch / PROGRESS).write_text(json.dumps(checkpoint.progress, indent=2))
    sums = {name: _sha256(scratch / name) for name in (WEIGHTS, STATE, PROGRESS)}
    (scratch / CHECKSUMS).write_text(json.dumps(sums, indent=2))
    for file in scratch.iterdir():
        _sync(file)
    _sync(scratch)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint and checks every file against its SHA-256.

    A stop between the two renames of `save_checkpoint` leaves the earlier one under its temporary
    name; it is taken then.

    Raises:
        DataError: There is none, or a file is missing or differs from its checksum.
    """
    old = folder.with_name(f".{folder.name}.old")
    folder = folder if folder.exists() or not old.exists() else old
    if not (folder / CHECKSUMS).is_file():
        raise DataError(f"{folder} is not a checkpoint: {CHECKSUMS} is missing.")
    for name, expected in json.loads((folder / CHECKSUMS).read_text()).items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise DataError(f"{folder / name} is damaged: it differs from its checksum.")
    return Checkpoint(
        weights=load_file(folder / WEIGHTS),
        state=torch.load(folder / STATE, weights_only=True, map_location="cpu"),
        progress=json.loads((folder / PROGRESS).read_text()),
    )


def random_state(device: torch.device) -> dict[str, Any]:
    """Captures the generators that training draws from: dropout is the only reader after set-up."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Puts the generators back."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
