"""Continuing a stopped run."""

import dataclasses
from collections.abc import Sequence

from loralab.config.load import read_yaml
from loralab.config.schema import TrainConfig
from loralab.data.prepare import DataFile
from loralab.errors import ConfigError, DataError
from loralab.runs.checkpoint import Checkpoint, load_checkpoint
from loralab.runs.folder import RunFolder, find_run, read_json

ALLOWED = ("resume", "run.outputs_dir", "callbacks", "logger")
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
    changed = [item for item in overrides if not item.lstrip("+~").startswith(ALLOWED)]
    if changed:
        raise ConfigError(f"resume continues with the run's own config. Leave out: {' '.join(changed)}")
    if read_json(run.summary_path).get("status") == "completed":
        raise ConfigError(
            f"resume={config.resume}: the run is complete; its adapter is in {run.adapter_dir}."
        )
    stored = read_yaml(run.config_path, TrainConfig)
    return run, dataclasses.replace(stored, callbacks=config.callbacks, logger=config.logger)


def check_same_data(run: RunFolder, files: Sequence[DataFile]) -> None:
    """Refuses to continue on other rows than the run began with.

    Raises:
        DataError: A file's content changed.
    """
    before = [entry["sha256"] for entry in read_json(run.manifest_path).get("data", [])]
    for file, sha256 in zip(files, before, strict=False):
        if file.sha256 != sha256:
            raise DataError(f"{file.path} changed since {run.run_id} began. Restore it, or start a new run.")


def last_checkpoint(run: RunFolder) -> Checkpoint | None:
    """Loads `last`; None where the run stopped before its first checkpoint.

    Raises:
        DataError: It is damaged.
    """
    folder = run.checkpoints_dir / "last"
    if not folder.exists() and not folder.with_name(".last.old").exists():
        return None
    return load_checkpoint(folder)
