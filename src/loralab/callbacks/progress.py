"""The progress display in the terminal."""

import time

import lightning.pytorch as pl
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loralab import metrics
from loralab.callbacks.recorder import Recorder
from loralab.modules.base import AdapterModule

REFRESH_S = 0.5
SECONDS_PER_MINUTE, SECONDS_PER_HOUR = 60, 3600


class ProgressLine(pl.Callback):
    """Shows where training is in two lines, and the last incident in a third.

    In a file or a pipe there is one line per validation instead.
    """

    def __init__(self, console: Console, recorder: Recorder) -> None:
        """Draws on a console what the recorder fetched last."""
        self.console = console
        self.recorder = recorder
        self._live: Live | None = None
        self._shown_at = 0.0
        self._started = (0.0, 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Opens the display where there is a terminal."""
        self._started = (time.perf_counter(), pl_module.finished_steps)
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
            self._show(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: AdapterModule, *args: object) -> None:  # type: ignore[override]
        """Draws anew, a few times a second at most."""
        if self._live is not None and time.perf_counter() - self._shown_at >= REFRESH_S:
            self._show(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Prints a lasting line per validation."""
        step, total = pl_module.finished_steps, pl_module.plan.total_steps
        shown = f"step {step:>{len(str(total))}}/{total}  val loss {pl_module.val_loss:.4f}"
        latest = self.recorder.latest
        if latest:
            shown += (
                f"  loss {latest[metrics.TRAIN_LOSS]:.3f}"
                f"  {latest[metrics.TRAIN_TOKENS_PER_S]:,.0f} tokens/s"
                f"  {memory_gib(self.recorder):.1f} GiB"
            )
        self.console.print(shown, soft_wrap=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Closes the display."""
        if self._live is not None:
            self._show(pl_module)
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Closes the display, so that the message that follows is not overdrawn."""
        self._close()

    def _show(self, module: AdapterModule) -> None:
        assert self._live is not None
        self._shown_at = time.perf_counter()
        since, first = self._started
        done, total = module.finished_steps, module.plan.total_steps
        left_s = (self._shown_at - since) / (done - first) * (total - done) if done > first else None
        place = (done, total, module.plan.epoch_at(done))
        self._live.update(render(place, left_s, self.recorder), refresh=True)

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def render(place: tuple[int, int, float], left_s: float | None, recorder: Recorder) -> Table:
    """Draws the display, for a terminal of 80 columns or more.

    Args:
        place: Finished steps, all steps, and passes over the data so far.
        left_s: Seconds left; None where nothing is known.
        recorder: Holds what was fetched last.
    """
    done, total, epoch = place
    latest, loss = recorder.latest, recorder.smoothed_loss
    first = Table.grid(padding=(0, 2), expand=True)
    first.add_column(no_wrap=True)
    first.add_column(ratio=1)
    first.add_column(no_wrap=True)
    head, tail = f"step {done:,}/{total:,}  epoch {epoch:.2f}", f"{clock(left_s)} left"
    first.add_row(head, ProgressBar(total=total, completed=done), tail)
    shown = Table.grid(expand=True)
    shown.add_column(no_wrap=True, overflow="ellipsis")
    shown.add_row(first)
    if latest:
        shown.add_row(Text(
            f"loss {'-' if loss is None else format(loss, '.3f')}  rate {latest[metrics.TRAIN_LR]:.1e}"
            f"  gradient {latest[metrics.TRAIN_GRAD_NORM]:.2g}"
            f"  {latest[metrics.TRAIN_TOKENS_PER_S]:,.0f} tokens/s  {memory_gib(recorder):.1f} GiB"
        ))  # fmt: skip
    if recorder.last_incident:
        shown.add_row(Text(recorder.last_incident, style="yellow"))
    return shown


def memory_gib(recorder: Recorder) -> float:
    """Returns what runs out first: the peak of a GPU, else what the process holds now."""
    on_gpu = recorder.meter.device.type == "cuda"
    return recorder.latest[metrics.MEMORY_PEAK_GIB if on_gpu else metrics.MEMORY_RSS_GIB]


def clock(seconds: float | None) -> str:
    """Writes a time as `1:02:03` or `2:03`; `-:--` where it is not known."""
    if seconds is None:
        return "-:--"
    whole = round(seconds)
    hours, rest = divmod(whole, SECONDS_PER_HOUR)
    minutes, rest = divmod(rest, SECONDS_PER_MINUTE)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
