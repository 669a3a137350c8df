"""Continuing a stopped run."""

import dataclasses
from collections.abc import Sequence

from rich.console import Console

from loralab.config.load import read_yaml
from loralab.config.schema import TrainConfig
from loralab.data.report import DataFile
from loralab.errors import ConfigError, DataError
from loralab.runs.checkpoint import Checkpoint, load_checkpoint
from loralab.runs.folder import RunFolder, find_run, read_json

GROUPS = ("callbacks", "logger", "eval")
ALLOWED = ("resume", "run.outputs_dir", *GROUPS)
"""Overrides that may stand beside `resume`: they change nothing about what is learned."""


def reopen(config: TrainConfig, overrides: Sequence[str]) -> tuple[RunFolder, TrainConfig]:
    """Finds the run that `resume` names and its own config.

    Args:
        config: What was composed now.
        overrides: What the user typed.

    Raises:
        ConfigError: The run does not exist, is complete, or the command changes its config.
    """
    assert config.resume is not None
    run = find_run(config.run.outputs_dir, config.resume, "resume")
    keys = [item.lstrip("+~").partition("=")[0] for item in overrides]
    changed = [
        item
        for item, key in zip(overrides, keys, strict=True)
        if key not in ALLOWED and key.partition(".")[0] not in GROUPS
    ]
    if changed:
        raise ConfigError(f"resume continues with the run's own config. Leave out: {' '.join(changed)}")
    if read_json(run.summary_path).get("status") == "completed":
        raise ConfigError(
            f"resume={config.resume}: the run is complete; its adapter is in {run.adapter_dir}."
        )
    stored = read_yaml(run.config_path, TrainConfig)
    typed = {key.partition(".")[0] for key in keys}
    return run, dataclasses.replace(
        stored, **{name: getattr(config, name) for name in GROUPS if name in typed}
    )


def check_same_data(run: RunFolder, files: Sequence[DataFile]) -> None:
    """Refuses to continue on other rows than the run began with.

    Raises:
        DataError: A file changed, came or went.
    """
    before = {entry["path"]: entry["sha256"] for entry in read_json(run.manifest_path).get("data", [])}
    now = {file.path: file.sha256 for file in files}
    for path in {**before, **now}:
        if before.get(path) != now.get(path):
            what = "changed" if path in before and path in now else "is new" if path in now else "is gone"
            raise DataError(f"{path} {what} since {run.run_id} began. Restore it, or start a new run.")


def last_checkpoint(run: RunFolder, console: Console) -> Checkpoint | None:
    """Loads `last`, or `best` where `last` is damaged; None where the run has no checkpoint yet.

    Raises:
        DataError: Both are damaged.
    """
    last, best = run.checkpoints_dir / "last", run.checkpoints_dir / "best"
    if not last.exists() and not last.with_name(".last.old").exists():
        return None
    try:
        return load_checkpoint(last)
    except DataError as error:
        if not best.exists():
            raise
        console.print(f"warning: {error} Going back to {best}.", soft_wrap=True)
        return load_checkpoint(best)
