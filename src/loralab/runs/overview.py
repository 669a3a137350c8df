"""What the runs below an outputs folder are and how far they came, from their files alone."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab import metrics
from loralab.runs.folder import RunFolder, read_json
from loralab.runs.lock import is_held
from loralab.runs.series import read_progress, saved_steps

STOPPED = "stopped"
"""A run that says it is running, and no process is."""
RUNNING = "running"


@dataclass(frozen=True)
class RunOverview:
    """One run in a line."""

    run: RunFolder
    status: str
    """completed, interrupted, failed, running, or stopped (killed without warning)."""
    step: int
    """Finished steps that are kept: the end of the run, or its newest checkpoint."""
    val_loss: float | None
    """The lowest so far."""
    began: datetime.datetime
    """When its folder was made."""


def list_runs(outputs_dir: Path) -> list[RunOverview]:
    """Lists the training runs below an outputs folder, the newest first."""
    runs = [RunFolder(path.parent.absolute()) for path in (outputs_dir / "train").glob("*/config.yaml")]
    return sorted(map(describe, runs), key=lambda each: (each.began, each.run.run_id), reverse=True)


def describe(run: RunFolder) -> RunOverview:
    """Reads how far a run came; a file that cannot be read counts as absent."""
    summary, progress = _read(run.summary_path), _newest_progress(run)
    status = str(summary.get("status", STOPPED))
    if status == RUNNING and not is_held(run):
        status = STOPPED
    best = progress.get("best", {}).get("val_loss")
    return RunOverview(
        run=run,
        status=status,
        step=int(progress.get("step", summary.get("step", 0))),
        val_loss=summary.get(metrics.VAL_LOSS) if status == "completed" else best,
        began=_began(run),
    )


def _newest_progress(run: RunFolder) -> dict[str, Any]:
    for step in saved_steps(run.checkpoints_dir):
        try:
            return read_progress(run.checkpoints_dir, step)
        except (OSError, ValueError):
            continue
    return {}


def _began(run: RunFolder) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(_read(run.manifest_path)["created"])
    except (KeyError, ValueError, TypeError):
        return datetime.datetime.fromtimestamp(run.config_path.stat().st_mtime).astimezone()


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ValueError:
        return {}
