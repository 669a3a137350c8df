"""Saves `last` and `best`."""

import math
from typing import Any

import lightning.pytorch as pl

from loralab.callbacks.recorder import Recorder
from loralab.errors import ConfigError
from loralab.modules.base import AdapterModule
from loralab.runs.checkpoint import Checkpoint, random_state, save_checkpoint
from loralab.runs.folder import RunFolder


class Checkpoints(pl.Callback):
    """Keeps the state to resume from and the adapter with the lowest validation loss."""

    def __init__(self, run: RunFolder, every: int | None, recorder: Recorder) -> None:
        """Saves `last` every so many steps, or at each validation where `every` is None."""
        self.run = run
        self.every = every
        self.recorder = recorder
        self.best: dict[str, Any] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: AdapterModule, *args: object) -> None:  # type: ignore[override]
        """Saves `last` where a step is due; a validation that is due after the step saves it as well."""
        step = pl_module.finished_steps
        validates = pl_module.plan.next_validation(step - 1) == step
        if self.every is not None and step % self.every == 0 and not validates:
            self.recorder.flush(trainer, pl_module)
            self.save(trainer, pl_module, "last")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Saves `best` where the validation loss is the lowest so far, and `last`.

        Raises:
            ConfigError: The validation loss is not finite; the checkpoints before it stay.
        """
        if not math.isfinite(pl_module.val_loss):
            raise ConfigError(
                f"the validation loss is {pl_module.val_loss} after step {pl_module.finished_steps}: training"
                f" diverged at optim.lr={pl_module.peak_lr}. Use a lower rate, or trainer.precision=fp32."
            )
        if not self.best or pl_module.val_loss < self.best["val_loss"]:
            self.best = {"val_loss": pl_module.val_loss, "step": pl_module.finished_steps}
            self.save(trainer, pl_module, "best")
        self.save(trainer, pl_module, "last")

    def save(self, trainer: pl.Trainer, module: AdapterModule, name: str) -> None:
        """Writes one checkpoint folder."""
        checkpoint = Checkpoint(
            weights=module.masters.state_dict(),
            state={
                "optimizer": trainer.optimizers[0].state_dict(),
                "random": random_state(module.device),
                "method": module.method_state(),
            },
            progress={
                "step": module.finished_steps,
                "val_loss": module.val_loss,
                "best": self.best,
                "recorder": self.recorder.state_dict(),
            },
        )
        save_checkpoint(self.run.checkpoints_dir / name, checkpoint)
