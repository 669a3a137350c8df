"""Signals end a run cleanly: after the step or within the validation, with a checkpoint."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from loralab.callbacks.checkpoints import Checkpoints
from loralab.callbacks.recorder import Recorder
from loralab.distributed.group import wait_for_all
from loralab.errors import Interrupted
from loralab.modules.base import AdapterModule
from loralab.runs.folder import RunFolder, resume_command

STOP = "stop"
"""What is voted on: whether a signal came."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def interruptible(run: RunFolder) -> Iterator[None]:
    """Turns signals into `Interrupted` while a run loads, validates or compares; training has its own way."""
    asked: list[Interrupted] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(Interrupted(f"{signal.Signals(number).name}. Continue with: {resume_command(run)}"))
        raise asked[-1]

    previous = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except Exception as error:
        # A library that a signal broke off may report a failure of its own instead.
        if asked and not isinstance(error, Interrupted):
            raise asked[-1] from error
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interrupts(pl.Callback):
    """Saves and stops after the step, or within the validation, that a signal came in.

    A second signal stops at once.
    """

    def __init__(self, checkpoints: Checkpoints, recorder: Recorder) -> None:
        """Saves through the callback that owns checkpoints."""
        self.checkpoints = checkpoints
        self.recorder = recorder
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Takes the signals over, after Lightning has placed its own handlers."""
        pl_module.votes.asked[STOP] = lambda: self.received is not None
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: AdapterModule, *args: object) -> None:  # type: ignore[override]
        """Saves and stops where a signal came and no validation is due, which would save as well."""
        if pl_module.plan.next_validation(pl_module.finished_steps - 1) != pl_module.finished_steps:
            self._stop_if_asked(trainer, pl_module)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: AdapterModule, *args: object) -> None:  # type: ignore[override]
        """Stops within a validation, which may take longer than a scheduler waits; resuming repeats it."""
        pl_module.votes.hold()
        self._stop_if_asked(trainer, pl_module, "; its validation is repeated")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Stops after the validation that a signal came in at its end, unless it was the last of the run."""
        if pl_module.finished_steps < pl_module.plan.total_steps:
            self._stop_if_asked(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the signals back; one that came in the last step stops the run before the comparison."""
        self._restore()
        if self.received is not None:
            raise Interrupted(f"{self.received.name} after the last step. {self._advice()}")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Gives the signals back."""
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted(f"stopped at once; the last checkpoint is whole. {self._advice()}")
        self.received = signal.Signals(number)

    def _stop_if_asked(self, trainer: pl.Trainer, module: AdapterModule, note: str = "") -> None:
        if STOP not in module.votes.asked or not module.votes.passed(STOP):
            return
        self.recorder.flush(trainer, module)
        self.checkpoints.save(trainer, module)
        # Whoever starts processes ends the others soon after the first one has gone.
        wait_for_all()
        name = self.received.name if self.received else "a signal to another process"
        raise Interrupted(
            f"{name} at step {module.finished_steps} of {module.plan.total_steps}: checkpoint saved{note}. "
            f"{self._advice()}"
        )

    def _advice(self) -> str:
        return f"Continue with: {resume_command(self.checkpoints.run)}"

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
