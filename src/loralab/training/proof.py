"""The proof that stopping and continuing a run changes nothing: 2N steps, and N + resume + N."""

import copy
import multiprocessing
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl

from loralab.config.schema import TrainConfig
from loralab.errors import EXIT_USER, ConfigError, Interrupted, LoralabError, ModelError
from loralab.modules.base import AdapterModule
from loralab.runs.compare import Verdict, compare_runs
from loralab.runs.folder import RunFolder
from loralab.training.fit import train
from loralab.training.processes import in_processes, num_devices

WHOLE, STOPPED = "whole", "stopped"
"""Names of the two runs."""

Execute = Callable[[TrainConfig, int | None], None]


class StopAfter(pl.Callback):
    """Sends this process the signal of a scheduler in the middle of a step."""

    def __init__(self, step: int) -> None:
        """Stops the run once so many steps are finished."""
        self.step = step

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: AdapterModule, *args: object) -> None:  # type: ignore[override]
        """Signals in the last step."""
        if pl_module.finished_steps == self.step - 1:
            signal.raise_signal(signal.SIGTERM)


def prove_resume(
    config: TrainConfig, steps: int, folder: Path, execute: Execute | None = None
) -> list[Verdict]:
    """Trains twice as many steps at once, and with a stop in the middle, and compares the two runs.

    Args:
        config: What to train; its length, its name and its outputs folder are replaced.
        steps: N.
        folder: Where the two runs go; it holds none of them yet.
        execute: Trains a config, stopped after so many steps; None does it in a process of its own, so that
            nothing but the run folder leads from one half to the other.

    Raises:
        LoralabError: A run could not be made, or would take several processes.
    """
    trainer = config.trainer
    if (num_processes := num_devices(trainer) * trainer.num_nodes) > 1:
        raise ConfigError(
            f"trainer.devices={trainer.devices} trainer.num_nodes={trainer.num_nodes}: {num_processes} "
            "processes, but the proof trains in one. Use trainer.devices=1 trainer.num_nodes=1."
        )
    execute = execute or in_own_process
    config = copy.deepcopy(in_processes(config, 1, 1))
    config.run.outputs_dir = str(folder)
    config.trainer.max_steps = 2 * steps
    config.resume, config.resume_changes, config.dry_run = None, False, False
    runs = {name: RunFolder(folder.absolute() / "train" / name) for name in (WHOLE, STOPPED)}
    for name, stop in ((WHOLE, None), (STOPPED, steps)):
        config.run.name = name
        execute(config, stop)
    config.run.name, config.resume = None, STOPPED
    execute(config, None)
    return compare_runs(runs[WHOLE], runs[STOPPED])


def in_this_process(config: TrainConfig, stop: int | None) -> None:
    """Trains, stopped after so many steps."""
    if stop is None:
        train(config)
        return
    try:
        train(config, [StopAfter(stop)])
    except Interrupted as interrupted:
        print(interrupted)


def as_a_command(config: TrainConfig, stop: int | None) -> None:
    """Trains as a process of its own, and says in a line what the user must change."""
    try:
        in_this_process(config, stop)
    except LoralabError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_USER)


def in_own_process(config: TrainConfig, stop: int | None) -> None:
    """Trains in a new process, stopped after so many steps.

    Raises:
        ModelError: The process failed; it has said why.
    """
    process = multiprocessing.get_context("spawn").Process(target=as_a_command, args=(config, stop))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise ModelError(f"the proof's run {config.run.name or config.resume} failed; the reason is above.")
