"""The checkpoints of a run: folders `step-N`, and the names `last` and `best` that point to two of them.

What a folder holds decides; the two links are there for people and scripts, and nothing reads them here.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loralab.errors import DataError
from loralab.runs.checkpoint import PROGRESS, Checkpoint, load_checkpoint

STEP_FOLDER = re.compile(r"step-(\d+)")
LAST, BEST = "last", "best"
UNFINISHED = (".tmp", ".gone")
"""Endings of what a killed write or removal leaves behind."""
REPLACED = ".old"
"""Ending of a checkpoint while another takes its place."""

Warn = Callable[[str], object]


def step_dir(checkpoints_dir: Path, step: int) -> Path:
    """Returns the folder of the checkpoint after `step` steps."""
    return checkpoints_dir / f"step-{step}"


def saved_steps(checkpoints_dir: Path) -> list[int]:
    """Lists the steps that have a checkpoint, the newest first; whether it is whole, reading it tells."""
    found = [STEP_FOLDER.fullmatch(path.name) for path in checkpoints_dir.glob("step-*")]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def clear_leftovers(checkpoints_dir: Path) -> None:
    """Removes what a kill left half done, and puts back a checkpoint that nothing had replaced yet."""
    for path in checkpoints_dir.glob(f".*{REPLACED}"):
        place = path.with_name(path.name.removeprefix(".").removesuffix(REPLACED))
        if place.exists():
            shutil.rmtree(path)
        else:
            path.rename(place)
    for ending in UNFINISHED:
        for path in checkpoints_dir.glob(f".*{ending}"):
            path.unlink() if path.is_symlink() else shutil.rmtree(path)


def load_newest(checkpoints_dir: Path, warn: Warn, before: int | None = None) -> Checkpoint | None:
    """Loads the newest checkpoint that is whole; None where there is no checkpoint at all.

    Args:
        checkpoints_dir: The folder of a run's checkpoints.
        warn: Takes a line about each damaged one that is passed over.
        before: The latest step to go back to; None takes any.

    Raises:
        DataError: There are some, and all are damaged.
    """
    steps = [step for step in saved_steps(checkpoints_dir) if before is None or step <= before]
    for step in steps:
        try:
            loaded = load_checkpoint(step_dir(checkpoints_dir, step))
        except DataError as error:
            warn(f"warning: {error} step-{step} is passed over for the checkpoint before it.")
            continue
        if step != steps[0]:
            warn(f"warning: going on from step-{step}; what was logged after it is written again.")
        return loaded
    if steps:
        raise DataError(
            f"no checkpoint in {checkpoints_dir} is whole. Restore one from a backup, or remove that folder: "
            "the run then begins again from its first step."
        )
    return None


def load_best(checkpoints_dir: Path, step: int, warn: Warn) -> Checkpoint:
    """Loads the checkpoint with the lowest validation loss; where it is damaged, the next best one.

    Args:
        checkpoints_dir: The folder of a run's checkpoints.
        step: The step of the best one.
        warn: Takes a line about a damaged one.

    Raises:
        DataError: None of them is whole.
    """
    try:
        return load_checkpoint(step_dir(checkpoints_dir, step))
    except DataError as error:
        warn(f"warning: {error} The best of the other checkpoints takes its place.")
    whole = []
    for other in saved_steps(checkpoints_dir):
        with contextlib.suppress(DataError):
            whole.append(load_checkpoint(step_dir(checkpoints_dir, other)))
    measured = [each for each in whole if each.progress["val_step"] == each.progress["step"]]
    if not measured:
        raise DataError(
            f"no checkpoint in {checkpoints_dir} is whole and has a validation loss. Restore step-{step}."
        )
    return min(measured, key=lambda each: float(each.progress["val_loss"]))


def point(checkpoints_dir: Path, name: str, step: int) -> None:
    """Lets `last` or `best` lead to a checkpoint, where the file system has links."""
    scratch = checkpoints_dir / f".{name}.tmp"
    with contextlib.suppress(OSError):
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(step_dir(checkpoints_dir, step).name)
        os.replace(scratch, checkpoints_dir / name)


def prune(checkpoints_dir: Path, keep_last: int, needed: int = 0) -> None:
    """Removes all but the newest checkpoints, those that hold the best model by their own account, and one.

    Args:
        checkpoints_dir: The folder of a run's checkpoints.
        keep_last: How many of the newest stay.
        needed: The newest one up to this step stays too.
    """
    steps = saved_steps(checkpoints_dir)
    kept = {*steps[:keep_last], *[step for step in steps if step <= needed][:1]}
    for step in steps[:keep_last]:
        with contextlib.suppress(OSError, ValueError, KeyError):
            kept.add(read_progress(checkpoints_dir, step)["best"]["step"])
    remove(checkpoints_dir, [step for step in steps if step not in kept])


def drop_after(checkpoints_dir: Path, step: int) -> None:
    """Removes the checkpoints of later steps: a run that went back writes them again."""
    remove(checkpoints_dir, [later for later in saved_steps(checkpoints_dir) if later > step])


def remove(checkpoints_dir: Path, steps: list[int]) -> None:
    """Removes checkpoints; a kill in between leaves nothing that looks like one."""
    for step in steps:
        folder = step_dir(checkpoints_dir, step)
        gone = folder.with_name(f".{folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone)


def read_progress(checkpoints_dir: Path, step: int) -> dict[str, Any]:
    """Reads what a checkpoint says of itself, unchecked.

    Raises:
        OSError: It has no such file.
        ValueError: It is no JSON.
    """
    text = (step_dir(checkpoints_dir, step) / PROGRESS).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
