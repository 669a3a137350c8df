"""`metrics.jsonl` as a checkpoint leaves it: what came after is cut off, because it is written again."""

import json
from pathlib import Path

from loralab.runs.checkpoint import sync
from loralab.runs.folder import write_text


def settled_bytes(path: Path) -> int:
    """Puts what was written on the disk and returns how long the file is; 0 where there is none."""
    if not path.is_file():
        return 0
    sync(path)
    return path.stat().st_size


def cut_metrics(path: Path, num_bytes: int, step: int) -> str | None:
    """Cuts a file back to what it was when a checkpoint was taken.

    Args:
        path: The file.
        num_bytes: Its length then.
        step: The finished steps then, for a file that has lost lines since.

    Returns:
        A line about lost lines, or None.
    """
    length = path.stat().st_size if path.is_file() else 0
    if length >= num_bytes:
        if length > num_bytes:
            with path.open("r+b") as file:
                file.truncate(num_bytes)
        return None
    keep_until(path, step)
    return f"warning: {path} has lost lines since the checkpoint after step {step} was taken."


def keep_until(path: Path, step: int) -> None:
    """Drops the lines after a step, and a line that a kill cut short."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    write_text(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
