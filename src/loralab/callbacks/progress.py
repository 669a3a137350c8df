"""The progress line in the terminal."""

import time

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from loralab import metrics
from loralab.callbacks.recorder import Recorder
from loralab.modules.base import AdapterModule

REFRESH_S = 0.5


class ProgressLine(pl.Callback):
    """Shows step, loss, tokens/s, memory and time left; in a file or a pipe, one line per validation."""

    def __init__(self, console: Console, recorder: Recorder) -> None:
        """Draws on a console what the recorder fetched last."""
        self.console = console
        self.recorder = recorder
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._shown_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Opens the bar where there is a terminal."""
        if not self.console.is_terminal:
            return
        columns = (
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True), TextColumn("left"),
        )  # fmt: skip
        self._progress = Progress(*columns, console=self.console, refresh_per_second=2)
        total = pl_module.plan.total_steps
        self._task = self._progress.add_task("", total=total, completed=pl_module.finished_steps, figures="")
        self._progress.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: AdapterModule, *args: object) -> None:  # type: ignore[override]
        """Moves the bar, a few times a second at most."""
        if self._progress is None or time.perf_counter() - self._shown_at < REFRESH_S:
            return
        self._shown_at = time.perf_counter()
        self._progress.update(self._task, completed=pl_module.finished_steps, figures=self._figures())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Prints a lasting line per validation."""
        step, total = pl_module.finished_steps, pl_module.plan.total_steps
        self.console.print(
            f"step {step:>{len(str(total))}}/{total}  val loss {pl_module.val_loss:.4f}  {self._figures()}"
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Closes the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=pl_module.finished_steps)
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Closes the bar, so that the message that follows is not overdrawn."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.update(self._task, figures=self._figures(), refresh=True)
            self._progress.stop()
            self._progress = None

    def _figures(self) -> str:
        latest = self.recorder.latest
        if not latest:
            return ""
        return (
            f"loss {latest[metrics.TRAIN_LOSS]:.3f}  {latest[metrics.TRAIN_TOKENS_PER_S]:,.0f} tokens/s  "
            f"{latest[metrics.MEMORY_RSS_GIB]:.1f} GiB"
        )
