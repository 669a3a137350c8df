"""One checkpoint folder: adapter and trainer state only, whole or not at all, checked when read."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loralab.errors import DataError
from loralab.runs.room import explain_full_disk, require_room

WEIGHTS = "adapter.safetensors"
STATE = "trainer_state.pt"
PROGRESS = "progress.json"
CHECKSUMS = "checksums.json"
FILES = (WEIGHTS, STATE, PROGRESS)
OTHERS = "random_of_others"
"""Where the state keeps the random generators of all processes but the first."""
SMALL_FILES_BYTES = 2**18
"""Room for what is no tensor: progress, checksums, generators, and the frames of the two large files."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on as if it had never stopped."""

    weights: dict[str, Tensor]
    """Float32 master weights of the adapter, by parameter name."""
    state: dict[str, Any]
    """State of the optimizer, of the random generators, of the adapter's method and of callbacks."""
    progress: dict[str, Any]
    """Finished steps, last and best validation, and how long the metrics were."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint under a temporary name, syncs it and renames it into place.

    Raises:
        StorageError: The disk has no room for it; what was there before stays whole.
    """
    needed = checkpoint_bytes(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    require_room(folder.parent, needed)
    scratch, old = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.old")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _write(scratch, checkpoint)
    except Exception as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if (full := explain_full_disk(error, folder.parent, needed)) is not None:
            raise full from error
        raise
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint and checks every file against its SHA-256.

    Raises:
        DataError: There is none, or a file is missing or differs from its checksum.
    """
    if faults := checkpoint_faults(folder):
        raise DataError(faults[0])
    return Checkpoint(
        weights=load_file(folder / WEIGHTS),
        state=torch.load(folder / STATE, weights_only=True, map_location="cpu"),
        progress=json.loads((folder / PROGRESS).read_text()),
    )


def checkpoint_faults(folder: Path) -> list[str]:
    """Lists what is wrong with a checkpoint: files that are missing or differ from their checksum."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return [f"{folder} is not a checkpoint: {CHECKSUMS} is missing."]
    try:
        sums = json.loads(path.read_text())
        named = set(sums)
    except (ValueError, TypeError):
        named = set()
    if named != set(FILES):
        return [f"{path} is damaged: it does not name {', '.join(FILES)}."]
    faults = []
    for name in FILES:
        if not (folder / name).is_file():
            faults.append(f"{folder / name} is missing.")
            continue
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            faults.append(f"{folder / name} cannot be read: {error.strerror}.")
            continue
        if found != sums[name]:
            faults.append(f"{folder / name} is damaged: it differs from its checksum.")
    return faults


def checkpoint_bytes(checkpoint: Checkpoint) -> int:
    """Estimates what a checkpoint takes on the disk."""
    return _tensor_bytes(checkpoint.weights) + _tensor_bytes(checkpoint.state) + SMALL_FILES_BYTES


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(scratch: Path, checkpoint: Checkpoint) -> None:
    scratch.mkdir(parents=True)
    writers: dict[str, Callable[[Path], Any]] = {
        WEIGHTS: lambda path: save_file(checkpoint.weights, path),
        STATE: lambda path: torch.save(checkpoint.state, path),
        PROGRESS: lambda path: path.write_text(json.dumps(checkpoint.progress, indent=2)),
    }
    for name, write in writers.items():
        write(scratch / name)
    sums = {name: sha256_of(scratch / name) for name in FILES}
    (scratch / CHECKSUMS).write_text(json.dumps(sums, indent=2))
    for file in scratch.iterdir():
        sync(file)
    sync(scratch)


def _tensor_bytes(tree: Any) -> int:
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, Mapping):
        return sum(map(_tensor_bytes, tree.values()))
    return sum(map(_tensor_bytes, tree)) if isinstance(tree, list | tuple) else 0
