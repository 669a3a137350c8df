"""Memory is marked where stages of a run end."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from loralab.callbacks import memory
from loralab.callbacks.memory import MemoryMonitor, stage_figures, stage_peaks
from loralab.runs.memory import MemoryReading


class Meter:
    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.readings: list[MemoryReading] = []

    def mark(self, stage: str) -> MemoryReading:
        self.readings.append(reading(stage, 1.0 + len(self.readings)))
        return self.readings[-1]


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.lines.append((step, values))


def reading(stage: str, peak: float) -> MemoryReading:
    return MemoryReading(stage, None, None, peak, 0.5)


def test_the_first_step_the_later_ones_and_validations_are_told_apart() -> None:
    meter, lines = Meter(), Lines()
    monitor: Any = MemoryMonitor(meter)  # type: ignore[arg-type]
    trainer, module = SimpleNamespace(loggers=[lines]), SimpleNamespace(finished_steps=1)
    monitor.on_train_batch_end(trainer, module)
    module.finished_steps = 2
    monitor.on_train_batch_end(trainer, module)
    monitor.on_validation_start(trainer, module)
    monitor.on_validation_end(trainer, module)
    assert [each.stage for each in meter.readings] == ["first_step", "steady", "evaluation"]
    assert lines.lines[0] == (1, {"memory/first_step_peak_gib": 1.0, "memory/first_step_resident_gib": 0.5})
    assert lines.lines[2][0] == 2


@pytest.mark.parametrize(("device", "expected"), [("cpu", 2), ("cuda", 0)])
def test_what_is_free_after_a_step_goes_back_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: int
) -> None:
    given_back: list[int] = []
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(1))
    monitor: Any = MemoryMonitor(Meter(device))  # type: ignore[arg-type]
    for _ in range(2):
        monitor.on_train_batch_end(SimpleNamespace(loggers=[]), SimpleNamespace(finished_steps=1))
    assert len(given_back) == expected


def test_a_gpu_adds_allocated_and_reserved() -> None:
    assert stage_figures(MemoryReading("loaded", 1.0, 2.0, 3.0, 4.0)) == {
        "memory/loaded_allocated_gib": 1.0,
        "memory/loaded_reserved_gib": 2.0,
        "memory/loaded_peak_gib": 3.0,
        "memory/loaded_resident_gib": 4.0,
    }


def test_each_stage_keeps_its_highest_reading() -> None:
    peaks = stage_peaks([reading("steady", 2.0), reading("evaluation", 1.0), reading("steady", 3.0)])
    assert [(name, each.peak_gib) for name, each in peaks.items()] == [("steady", 3.0), ("evaluation", 1.0)]
