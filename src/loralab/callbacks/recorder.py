"""Writes every step's metrics to the loggers without making the device wait for each step."""

import math
import time
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch

from loralab import metrics
from loralab.data.collate import StepBatch
from loralab.modules.base import AdapterModule
from loralab.runs.memory import MemoryMeter, rss_gib

SMOOTHING = 0.9
"""Share of the mean before in the smoothed loss: a memory of about ten steps."""


class StepCounts(NamedTuple):
    """What a line of metrics needs of a step's batch, without its tensors."""

    step: int
    tokens: int
    supervised_tokens: int


class Recorder(pl.Callback):
    """Gathers metrics on the device and hands them on every few steps."""

    def __init__(self, log_every: int, meter: MemoryMeter) -> None:
        """Hands metrics on every `log_every` steps and before each validation."""
        self.log_every = log_every
        self.meter = meter
        self.tokens = 0
        self.supervised_tokens = 0
        self.train_s = 0.0
        self.latest: dict[str, float] = {}
        self.smoothed_loss: float | None = None
        """Exponential mean of the loss, for people to look at."""
        self.last_incident = ""
        self._waiting: list[tuple[StepCounts, dict[str, Any]]] = []
        self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters that a resumed run goes on with."""
        return {
            "tokens": self.tokens, "supervised_tokens": self.supervised_tokens, "train_s": self.train_s,
            "latest": self.latest, "smoothed_loss": self.smoothed_loss, "last_incident": self.last_incident,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes counters back."""
        self.__dict__.update(state_dict)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._since = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Writes what the validation found and starts the clock again: validation is not training time."""
        self.write(trainer, pl_module.finished_steps, pl_module.validation_figures())
        self._since = time.perf_counter()

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: pl.Trainer,
        pl_module: AdapterModule,
        outputs: dict[str, Any],
        batch: StepBatch,
        batch_idx: int,
    ) -> None:
        """Keeps a step's metrics; flushes when enough steps are waiting or a validation is due."""
        self._waiting.append((StepCounts(batch.step, batch.tokens, batch.supervised_tokens), outputs))
        due = pl_module.plan.next_validation(batch.step) == pl_module.finished_steps
        if len(self._waiting) >= self.log_every or due:
            self.flush(trainer, pl_module)

    def flush(self, trainer: pl.Trainer, module: AdapterModule) -> None:
        """Fetches what is waiting from the device, in one transfer, and writes a line per step."""
        if not self._waiting:
            return
        names = [name for name, value in self._waiting[0][1].items() if isinstance(value, torch.Tensor)]
        fetched = torch.stack(
            [torch.stack([outputs[name].float() for name in names]) for _, outputs in self._waiting]
        ).tolist()
        elapsed = time.perf_counter() - self._since
        tokens = sum(batch.tokens for batch, _ in self._waiting)
        for (batch, outputs), values in zip(self._waiting, fetched, strict=True):
            plain = {name: value for name, value in outputs.items() if name not in names}
            self.latest = {
                "epoch": round(module.plan.epoch_at(batch.step + 1), 4),
                **plain,
                **_present(dict(zip(names, values, strict=True))),
                metrics.TRAIN_TOKENS_PER_S: round(tokens / elapsed, 1),
                metrics.TRAIN_TOKENS: batch.tokens,
                metrics.TRAIN_SUPERVISED_TOKENS: batch.supervised_tokens,
                metrics.MEMORY_RSS_GIB: round(rss_gib(), 3),
                metrics.MEMORY_PEAK_GIB: round(self.meter.peak_gib, 3),
            }
            self.supervised_tokens += batch.supervised_tokens
            self.smoothed_loss = _smoothed(self.smoothed_loss, self.latest[metrics.TRAIN_LOSS])
            self.write(trainer, batch.step + 1, self.latest)
        self.tokens += tokens
        self.train_s += elapsed
        self._waiting.clear()
        self._since = time.perf_counter()

    @staticmethod
    def write(trainer: pl.Trainer, step: int, values: dict[str, Any]) -> None:
        """Hands one line of metrics to every logger; words only to those that take them."""
        for logger in trainer.loggers:
            logger.log_metrics(
                values if getattr(logger, "takes_words", False) else metrics.numbers(values), step
            )


def _smoothed(mean: float | None, loss: float) -> float | None:
    if not math.isfinite(loss):
        return mean
    return loss if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * loss


def _present(values: dict[str, float]) -> dict[str, float]:
    """Leaves out the loss of a source that a step has no row of."""
    of_source = metrics.for_source(metrics.TRAIN_LOSS, "")
    return {k: v for k, v in values.items() if not (k.startswith(of_source) and math.isnan(v))}
