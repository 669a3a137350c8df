"""Lines of metrics go to every logger, words to those that take them."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from loralab.callbacks.recorder import Recorder
from loralab.data.collate import StepBatch
from loralab.data.plan import StepPlan


class Lines:
    def __init__(self, takes_words: bool) -> None:
        self.takes_words = takes_words
        self.lines: list[tuple[int, dict[str, Any]]] = []

    def log_metrics(self, values: dict[str, Any], step: int) -> None:
        self.lines.append((step, values))


def test_words_go_to_loggers_that_take_them_alone() -> None:
    local, remote = Lines(True), Lines(False)
    trainer = cast(Any, SimpleNamespace(loggers=[local, remote]))
    Recorder.write(trainer, 3, {"incident/kind": "skipped", "incident/rows": ["a"], "incident/count": 2})
    assert local.lines == [(3, {"incident/kind": "skipped", "incident/rows": ["a"], "incident/count": 2})]
    assert remote.lines == [(3, {"incident/count": 2})]


def test_smoothed_loss_passes_over_what_is_not_finite_and_survives_a_stop() -> None:
    recorder = Recorder(1, cast(Any, SimpleNamespace(peak_gib=1.0)))
    module = cast(Any, SimpleNamespace(plan=StepPlan(10, 1, 1, None, 10, 0), finished_steps=0))
    trainer = cast(Any, SimpleNamespace(loggers=[]))
    recorder.on_train_start(trainer, module)
    for step, loss in enumerate([2.0, math.nan, 1.0]):
        module.finished_steps = step + 1
        batch = StepBatch([], step, 1.0, 5, 9)
        outputs = {"train/loss": torch.tensor(loss), "train/grad_norm": torch.tensor(1.0), "train/lr": 0.1}
        recorder.on_train_batch_end(trainer, module, outputs, batch, 0)
    assert recorder.smoothed_loss == pytest.approx(0.9 * 2.0 + 0.1 * 1.0)
    later = Recorder(1, cast(Any, None))
    later.load_state_dict(recorder.state_dict())
    assert later.smoothed_loss == recorder.smoothed_loss
