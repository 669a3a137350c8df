"""Saves checkpoints: when steps or minutes are over, at validations, and when an error ends the run."""

import math
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console

from loralab.callbacks.recorder import Recorder
from loralab.config.callbacks import CallbacksConfig
from loralab.distributed.group import gathered, is_first, on_first, rank, world_size
from loralab.errors import ConfigError, Interrupted
from loralab.modules.base import AdapterModule
from loralab.runs.checkpoint import OTHERS, Checkpoint, save_checkpoint
from loralab.runs.folder import RunFolder, resume_command
from loralab.runs.generators import random_state
from loralab.runs.metrics_file import settled_bytes
from loralab.runs.series import BEST, LAST, drop_after, load_newest, point, prune, step_dir

SECONDS_PER_MINUTE = 60
SAVE = "save"
"""What is voted on: whether so many minutes are over."""


class Phase(Enum):
    """Where in the loop a run is."""

    BETWEEN = "between two steps"
    STEP = "in a step, before the optimizer"
    UPDATE = "while the weights changed"
    OVER = "after the step, before it was written down"
    VALIDATION = "in a validation"


class Checkpoints(pl.Callback):
    """Keeps what to resume from and the adapter with the lowest validation loss.

    It comes after every callback that writes metrics or has a state: a checkpoint holds both as they are.
    """

    def __init__(self, run: RunFolder, config: CallbacksConfig, recorder: Recorder, console: Console) -> None:
        """Saves below a run's folder."""
        self.run = run
        self.config = config
        self.recorder = recorder
        self.console = console
        self.best: dict[str, Any] = {}
        self.val_step = 0
        """The step of the last validation that was finished."""
        self.restored: dict[str, Any] = {}
        """The state that a run was restored from, until training begins."""
        self._phase = Phase.BETWEEN
        self._begun_step = 0
        self._generators: dict[str, Any] = {}
        self._saved: tuple[int, int] | None = None
        self._saved_at = time.monotonic()

    def validation_due(self, module: AdapterModule) -> bool:
        """Says whether the validation that belongs after the last step was not finished."""
        step = module.finished_steps
        return 0 < step != self.val_step and module.plan.next_validation(step - 1) == step

    def on_train_start(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Starts the clock, which processes may read differently: any of them lets all save."""
        self.restored = {}
        pl_module.votes.asked[SAVE] = self._is_time
        self._saved_at = time.monotonic()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: AdapterModule, *args: object) -> None:  # type: ignore[override]
        """Remembers the generators: a step that fails is repeated with the same draws."""
        self._generators = random_state(pl_module.device)
        self._begun_step = pl_module.finished_steps
        self._phase = Phase.STEP

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """From here on to the end of the step the state is that of no step."""
        self._phase = Phase.UPDATE

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: AdapterModule, *args: object) -> None:  # type: ignore[override]
        """Saves where steps or minutes are over; a validation that is due after the step saves as well."""
        self._phase = Phase.BETWEEN
        due = self._is_step_due(pl_module.finished_steps) or pl_module.votes.passed(SAVE)
        if due and not self.validation_due(pl_module):
            self.recorder.flush(trainer, pl_module)
            self.save(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An error from here on leaves the state whole."""
        self._phase = Phase.VALIDATION

    def on_validation_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Saves, and keeps the best where the validation loss is the lowest so far.

        Raises:
            ConfigError: The validation loss is not finite; the checkpoints before it stay.
        """
        self._phase = Phase.BETWEEN
        if not math.isfinite(pl_module.val_loss):
            raise ConfigError(_diverged(pl_module, f"the validation loss is {pl_module.val_loss}"))
        self.val_step = pl_module.finished_steps
        if not self.best or pl_module.val_loss < self.best["val_loss"]:
            self.best = {"val_loss": pl_module.val_loss, "step": pl_module.finished_steps}
        self.save(trainer, pl_module)

    def on_exception(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: AdapterModule, exception: BaseException
    ) -> None:
        """Saves what an error left whole, or says why it cannot."""
        phase, self._phase = self._phase, Phase.BETWEEN
        if isinstance(exception, Interrupted) or pl_module.finished_steps == 0 or phase == Phase.BETWEEN:
            return
        if phase in (Phase.STEP, Phase.UPDATE) and pl_module.finished_steps != self._begun_step:
            # Some callbacks have counted the step by now, and others have not.
            phase = Phase.OVER
        if phase in (Phase.UPDATE, Phase.OVER):
            self._say(f"no checkpoint of this step: the error came {phase.value}. {self._where()}")
            return
        if world_size() > 1:
            # What the others drew by now is not known; they may have ended.
            self._say(f"the last checkpoint is whole. {self._where()}")
            return
        try:
            self.recorder.flush(trainer, pl_module)
            self.save(trainer, pl_module, self._generators if phase == Phase.STEP else None)
        except Exception as error:  # whatever it is must not replace the error that ended the run
            self._say(f"no checkpoint of this step: {error} {self._where()}")
            return
        self._say(f"checkpoint of step {pl_module.finished_steps} saved after the error. {self._where()}")

    def save(
        self, trainer: pl.Trainer, module: AdapterModule, generators: dict[str, Any] | None = None
    ) -> None:
        """Writes the checkpoint of the last finished step, and removes those that are kept no longer.

        Args:
            trainer: Holds the optimizer and the callbacks with a state.
            module: What trains.
            generators: Random generators to keep; None takes them as they are now.

        Raises:
            StorageError: The disk is full; the checkpoints before it are whole.
            ConfigError: Weights are not finite; the checkpoints before it stay.
        """
        step, folder = module.finished_steps, self.run.checkpoints_dir
        if self._saved == (step, self.val_step):
            return
        weights = module.masters.state_dict()
        if not torch.stack([weight.isfinite().all() for weight in weights.values()]).all():
            raise ConfigError(_diverged(module, "weights are not finite"))
        state = self._state(trainer, module)
        if generators is not None:
            state["random"] = generators
        state["random"], *state[OTHERS] = gathered(state["random"])
        self._saved, self._saved_at = (step, self.val_step), time.monotonic()
        if not is_first():
            return
        state["method"] = module.method_state()
        state["callbacks"] = callback_states(trainer)
        progress = {
            "step": step,
            "val_loss": module.val_loss,
            "val_step": self.val_step,
            "best": self.best,
            "metrics_bytes": settled_bytes(self.run.metrics_path),
        }
        save_checkpoint(step_dir(folder, step), Checkpoint(weights, state, progress))
        drop_after(folder, step)
        point(folder, LAST, step)
        if self.best:
            point(folder, BEST, self.best["step"])
        # What the guard would go back to, if a spike came next or one has come.
        start = (module.guard.episode or {"start": step})["start"]
        prune(folder, self.config.keep_last, planned_checkpoint(start, module.plan.val_interval, self.config))

    def roll_back(self, trainer: pl.Trainer, module: AdapterModule, before: int | None = None) -> int | None:
        """Puts weights, optimizer and the method's state back to a checkpoint; steps and data go on forward.

        Args:
            trainer: Holds the optimizer.
            module: What trains.
            before: The latest step to go back to; None takes the newest checkpoint.

        Returns:
            The step of the checkpoint; None where there is none so early.

        Raises:
            DataError: All of them are damaged.
        """
        checkpoint = on_first(lambda: load_newest(self.run.checkpoints_dir, self._say, before))
        if checkpoint is None:
            return None
        module.masters.load_state_dict(checkpoint.weights)
        module.load_method_state(checkpoint.state["method"])
        trainer.optimizers[0].load_state_dict(checkpoint.state["optimizer"])
        step: int = checkpoint.progress["step"]
        return step

    def _state(self, trainer: pl.Trainer, module: AdapterModule) -> dict[str, Any]:
        if not trainer.optimizers:  # a validation that is made up for before training has begun again
            return {"optimizer": self.restored["optimizer"], "random": own_generators(self.restored, module)}
        return {"optimizer": trainer.optimizers[0].state_dict(), "random": random_state(module.device)}

    def _is_step_due(self, step: int) -> bool:
        return self.config.checkpoint_every is not None and step % self.config.checkpoint_every == 0

    def _is_time(self) -> bool:
        minutes, passed_s = self.config.checkpoint_minutes, time.monotonic() - self._saved_at
        return minutes is not None and passed_s >= minutes * SECONDS_PER_MINUTE

    def _where(self) -> str:
        return f"Continue with: {resume_command(self.run)}"

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False)


def _diverged(module: AdapterModule, sign: str) -> str:
    return (
        f"{sign} after step {module.finished_steps}: training diverged at optim.lr={module.peak_lr}. Use a "
        "lower rate, or trainer.precision=fp32."
    )


def callback_states(trainer: pl.Trainer) -> dict[str, Any]:
    """Returns the state of each callback that has one, by the name of its class."""
    states = {type(callback).__name__: callback.state_dict() for callback in trainer.callbacks}  # type: ignore[attr-defined]
    return {name: state for name, state in states.items() if state}


def own_generators(state: Mapping[str, Any], module: AdapterModule) -> dict[str, Any]:
    """Returns the generators of this process in a checkpoint; those of now where it was not there before."""
    of_processes = [state["random"], *state.get(OTHERS, ())]
    if rank() < len(of_processes):
        own: dict[str, Any] = of_processes[rank()]
        return own
    return random_state(module.device)


def planned_checkpoint(step: int, val_interval: int, config: CallbacksConfig) -> int:
    """Returns the last step, up to the given one, after which a run saves wherever it was stopped.

    Signals and minutes save at other steps, which differ between a run that was stopped and one that never
    was; going back to those alone that both have lets the two stay the same.

    Args:
        step: The latest step to go back to.
        val_interval: Steps between validations, each of which saves.
        config: Holds the steps between other checkpoints.
    """
    intervals = [val_interval, *([config.checkpoint_every] if config.checkpoint_every else [])]
    return max(step // interval * interval for interval in intervals)
