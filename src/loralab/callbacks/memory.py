"""Memory by stage of a run: read where a stage ends, written to the metrics."""

from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl

from loralab import metrics
from loralab.callbacks.recorder import Recorder
from loralab.modules.base import AdapterModule
from loralab.runs.allocator import give_back
from loralab.runs.memory import MemoryMeter, MemoryReading

FIRST_STEP, STEADY, EVALUATION = "first_step", "steady", "evaluation"


class MemoryMonitor(pl.Callback):
    """Marks the first step, the steps between validations, and each validation.

    What comes before the first step is marked where it happens, with the same meter. On a CPU, blocks that
    are free after a step go back to the system: the next one has rows of other lengths and needs others.
    """

    def __init__(self, meter: MemoryMeter) -> None:
        """Reads with a meter."""
        self.meter = meter
        self._stepped = False

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: AdapterModule, *args: object) -> None:  # type: ignore[override]
        """Ends the stage of the first step, which allocates what every later step finds in place."""
        if not self._stepped:
            self._stepped = True
            self._mark(trainer, pl_module, FIRST_STEP)
        if self.meter.device.type == "cpu":
            give_back()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Ends a stretch of steps."""
        self._mark(trainer, pl_module, STEADY)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Ends a validation."""
        self._mark(trainer, pl_module, EVALUATION)

    def _mark(self, trainer: pl.Trainer, module: AdapterModule, stage: str) -> None:
        Recorder.write(trainer, module.finished_steps, stage_figures(self.meter.mark(stage)))


def stage_figures(reading: MemoryReading) -> dict[str, float]:
    """Names the figures of a reading for the metrics, such as `memory/first_step_peak_gib`."""
    figures: dict[str, Any] = asdict(reading)
    stage = figures.pop("stage")
    return {metrics.of_stage(stage, name): value for name, value in figures.items() if value is not None}


def stage_peaks(readings: list[MemoryReading]) -> dict[str, MemoryReading]:
    """Keeps of each stage, in the order of their first marks, the reading with the highest peak."""
    highest: dict[str, MemoryReading] = {}
    for reading in readings:
        if reading.stage not in highest or reading.peak_gib > highest[reading.stage].peak_gib:
            highest[reading.stage] = reading
    return highest
