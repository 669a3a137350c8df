"""Runs of `train.py` that are measured, by their own metrics and summary."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from killing import run_process

ROOT = Path(__file__).parent.parent
POLL_S = 0.1


def train(words: Sequence[str], folder: Path, name: str) -> float:
    """Trains with `train.py` as a user would and returns the seconds until its first step was logged.

    Args:
        words: Overrides; `callbacks.log_every=1` among them, or the first step is logged with later ones.
        folder: `run.outputs_dir`.
        name: `run.name`.
    """
    command = [sys.executable, "train.py", f"run.name={name}", f"run.outputs_dir={folder}", *words]
    started, run = time.time(), run_folder(folder, name)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not logged_steps(run):
            time.sleep(POLL_S)
        first_step_s = time.time() - started
    if process.returncode:
        raise SystemExit(f"train.py {' '.join(words)} ended with {process.returncode}")
    return first_step_s


def train_forked(words: Sequence[str], folder: Path, name: str) -> None:
    """Trains as `train.py` does, in a process of its own, forked from one that has done all imports.

    It saves the seconds that every start of `train.py` takes; one process trains.
    """
    from loralab.config.load import compose_train

    log = folder / f"{name}.txt"
    config = compose_train([*words, f"run.name={name}", f"run.outputs_dir={folder}"])
    if (code := run_process(config, None, log)) != 0:
        raise SystemExit(f"{log.read_text()}training with {' '.join(words)} ended with {code}")


def run_folder(folder: Path, name: str) -> Path:
    """Returns where a run is kept."""
    return folder / "train" / name


def logged_steps(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics that are steps."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    return [line for line in map(json.loads, lines) if "train/loss" in line]


def read_summary(run: Path) -> dict[str, Any]:
    """Returns the summary of a run that is over."""
    return dict(json.loads((run / "summary.json").read_text()))


def speed(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns tokens and supervised tokens per second of some steps."""
    seconds = sum(step["train/tokens"] / step["train/tokens_per_s"] for step in steps)
    return {
        "tokens_per_s": sum(step["train/tokens"] for step in steps) / seconds,
        "supervised_per_s": sum(step["train/supervised_tokens"] for step in steps) / seconds,
    }
