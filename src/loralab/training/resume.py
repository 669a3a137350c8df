"""Continuing a stopped run: which one, with which config, on which data."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loralab.config.changes import Change, find_changes, is_below, with_values
from loralab.config.load import read_yaml, to_yaml
from loralab.config.resume_rules import AUTO, allowed_keys
from loralab.config.schema import TrainConfig
from loralab.config.typed_rules import typed_faults, typed_keys
from loralab.config.validate import validate_train
from loralab.data.report import DataFile
from loralab.distributed.place import place_of
from loralab.errors import ConfigError, DataError, LoralabError
from loralab.runs.folder import RunFolder, find_run, read_json, write_json, write_text
from loralab.runs.lock import is_held
from loralab.runs.series import saved_steps

HARMLESS = (
    "callbacks.progress", "callbacks.log_every", "callbacks.checkpoint_every", "callbacks.checkpoint_minutes",
    "callbacks.keep_last", "callbacks.profiler", "logger", "eval", "data.num_workers", "trainer.memory_gib",
)  # fmt: skip
"""Keys and groups that change nothing about what is learned: a resumed run takes those of now."""
OF_THE_COMMAND = ("run", "resume", "resume_changes", "dry_run")
"""What says how to run, not what."""
OVERLAYS = ("experiment", "debug")
"""Choices that may set any key."""
CHOSEN_BY_AUTO = ("lora.auto", "lora.r", "lora.alpha")
"""What `lora=auto` has filled in in the config of a run."""
LENGTH = ("trainer.max_steps", "trainer.epochs")
OF_THE_STATE = ("optim.name", "optim.lora_plus_ratio", "optim.lr_pattern", "optim.decay_vectors")
"""What the saved state of the optimizer is made for."""


@dataclass(frozen=True)
class Resumed:
    """A run to go on with."""

    run: RunFolder
    config: TrainConfig
    """Its own config, with what was allowed to change."""
    changes: tuple[Change, ...] = ()
    """What that is; harmless keys left out."""


def reopen(config: TrainConfig, overrides: Sequence[str]) -> Resumed | None:
    """Finds the run that `resume` names, or with `auto` the newest that fits; None where none does.

    Args:
        config: What was composed now.
        overrides: What the user typed.

    Raises:
        ConfigError: The run does not exist, is complete, or its config differs in more than is allowed.
    """
    assert config.resume is not None
    if config.resume == AUTO and config.run.name is None:
        return _newest(config)
    if config.resume == AUTO:
        run = RunFolder((Path(config.run.outputs_dir) / "train" / str(config.run.name)).absolute())
        return _continued(run, config, None) if run.config_path.is_file() else None
    run = find_run(config.run.outputs_dir, config.resume, "resume")
    typed = typed_keys(overrides)
    return _continued(run, config, None if set(typed) & set(OVERLAYS) else typed)


def explain_resume(resumed: Resumed | None, config: TrainConfig) -> str:
    """Says in a line with which run training goes on, from where, and with what changed."""
    if resumed is not None:
        steps = saved_steps(resumed.run.checkpoints_dir)
        begun = f" from step {steps[0]}" if steps else ""
        changed = "".join(f"; {change}" for change in resumed.changes)
        return f"resume={config.resume}: going on with {resumed.run.run_id}{begun}{changed}"
    differing = [(run, changes) for run, changes in _unfinished(config) if changes]
    if not differing or config.run.name is not None:
        return "resume=auto: no unfinished run to go on with; a new one starts"
    run, changes = differing[0]
    listed = "; ".join(map(str, changes[:3])) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")  # noqa: PLR2004
    return f"resume=auto: {run.run_id} is unfinished but differs ({listed}); a new run starts"


def record_changes(resumed: Resumed, step: int) -> None:
    """Writes the config that a run goes on with, and in the manifest from which step on."""
    run, text = resumed.run, to_yaml(resumed.config)
    # Harmless keys as well: an evaluation later takes them from here.
    if text != run.config_path.read_text(encoding="utf-8"):
        write_text(run.config_path, text)
    if resumed.changes:
        manifest = read_json(run.manifest_path)
        entry = {"step": step, "changes": [str(change) for change in resumed.changes]}
        write_json(run.manifest_path, {**manifest, "resumed": [*manifest.get("resumed", []), entry]})


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


def check_same_processes(resumed: Resumed) -> None:
    """Refuses to continue in another number of processes than the run's config says.

    Raises:
        ConfigError: There are more or fewer.
    """
    trainer, started = resumed.config.trainer, place_of(os.environ)
    expected = (trainer.devices, trainer.num_nodes)
    if expected != (started.local_world_size, started.num_nodes):
        raise ConfigError(
            f"{resumed.run.run_id} trains in {trainer.devices} processes on each of {trainer.num_nodes} "
            f"machines, but {started.local_world_size} on {started.num_nodes} were started. Start as many, "
            "or allow the change: trainer.devices=N trainer.num_nodes=M "
            "'resume_changes=[trainer.devices,trainer.num_nodes]'."
        )


def is_complete(run: RunFolder) -> bool:
    """Says whether a run has reached its end."""
    return read_json(run.summary_path).get("status") == "completed"


def _continued(run: RunFolder, config: TrainConfig, typed: Sequence[str] | None) -> Resumed:
    """Joins a run's config with that of now: of the keys typed, or of all where `typed` is None."""
    stored = read_yaml(run.config_path, TrainConfig)
    differing = _differences(stored, config)
    if typed is not None:
        differing = [change for change in differing if is_below(change.key, typed)]
    changes = [change for change in differing if not is_below(change.key, HARMLESS)]
    allowed = allowed_keys(config)
    refused = [c for c in changes if not (config.resume_changes is True or is_below(c.key, allowed))]
    if refused:
        keys = ",".join(change.key for change in refused)
        raise ConfigError("\n  ".join([
            f"resume={config.resume}: the config differs from that of {run.run_id}:", *map(str, refused),
            f"Leave them out, or allow them with 'resume_changes=[{keys}]'.",
        ]))  # fmt: skip
    fixed = [change for change in changes if is_below(change.key, OF_THE_STATE)]
    if fixed:
        raise ConfigError(
            f"resume={config.resume}: {fixed[0]}. The optimizer's state in the checkpoint is made for the "
            "former. Leave it out, or start a new run."
        )
    if is_complete(run) and not any(change.key in LENGTH for change in changes):
        raise ConfigError(
            f"resume={config.resume}: the run is complete; its adapter is in {run.adapter_dir}. To train on, "
            "give more steps: trainer.max_steps=N 'resume_changes=[trainer.max_steps]'."
        )
    joined = with_values(stored, {change.key: change.now for change in differing})
    validate_train(joined, typed_faults(joined, typed or ()))
    return Resumed(run, joined, tuple(changes))


def _differences(stored: TrainConfig, now: TrainConfig) -> list[Change]:
    ignored = (*OF_THE_COMMAND, *(CHOSEN_BY_AUTO if now.lora.auto else ()))
    return [change for change in find_changes(stored, now) if not is_below(change.key, ignored)]


def _newest(config: TrainConfig) -> Resumed | None:
    agreeing = next((run for run, changes in _unfinished(config) if not changes), None)
    return None if agreeing is None else _continued(agreeing, config, None)


def _unfinished(config: TrainConfig) -> list[tuple[RunFolder, list[Change]]]:
    """Runs that are not complete and that no process trains, newest first, with what is not allowed."""
    paths = (Path(config.run.outputs_dir) / "train").glob("*/config.yaml")
    found, allowed = [], allowed_keys(config)
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path), reverse=True):
        run = RunFolder(path.parent.absolute())
        try:
            if is_complete(run) or is_held(run):
                continue
            stored = read_yaml(path, TrainConfig)
        except (LoralabError, ValueError):
            continue  # a folder that holds no run of this version
        harmless = (*HARMLESS, *allowed)
        changes = [c for c in _differences(stored, config) if not is_below(c.key, harmless)]
        found.append((run, [] if config.resume_changes is True else changes))
    return found
