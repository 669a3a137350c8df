"""What the terminal shows, at the widths that terminals have."""

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from loralab.callbacks.progress import ProgressLine, clock, render
from loralab.callbacks.recorder import Recorder

LATEST = {
    "train/loss": 0.5123, "train/lr": 0.00191, "train/grad_norm": 12.34, "train/tokens_per_s": 12436.0,
    "memory/rss_gib": 78.51, "memory/peak_gib": 71.25,
}  # fmt: skip
INCIDENT = "step 1,234 skipped: gradient norm 41.2 above 9.3, median 1.1" + ", and so on" * 9


def recorder(incident: str = "", device: str = "cpu") -> Recorder:
    found = Recorder(5, cast(Any, SimpleNamespace(device=SimpleNamespace(type=device))))
    found.latest, found.smoothed_loss, found.last_incident = LATEST, 0.4321, incident
    return found


@pytest.mark.parametrize("width", [80, 120])
def test_everything_fits_and_only_an_incident_is_cut(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(render((123_456, 200_000, 12.34), 36_125, recorder(INCIDENT)))
    first, second, third = capture.get().rstrip("\n").split("\n")
    assert max(map(len, (first, second, third))) <= width
    assert first.startswith("step 123,456/200,000  epoch 12.34")
    assert first.rstrip().endswith("10:02:05 left")
    assert second.strip() == "loss 0.432  rate 1.9e-03  gradient 12  12,436 tokens/s  78.5 GiB"
    assert third.startswith("step 1,234 skipped: gradient norm 41.2 above 9.3")
    assert third.rstrip().endswith("…")


def test_a_gpu_shows_its_own_memory() -> None:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(render((1, 9, 0.1), 5, recorder(device="cuda")))
    assert "tokens/s  71.2 GiB" in capture.get()


def test_before_the_first_figures_there_is_a_line_alone() -> None:
    console = Console(file=io.StringIO(), width=80)
    empty = Recorder(5, cast(Any, None))
    with console.capture() as capture:
        console.print(render((0, 9, 0.0), None, empty))
    (only,) = capture.get().rstrip("\n").split("\n")
    assert only.startswith("step 0/9  epoch 0.00")
    assert only.rstrip().endswith("-:-- left")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_a_pipe_gets_a_line_per_validation_and_no_display() -> None:
    file = io.StringIO()
    line: Any = ProgressLine(Console(file=file, width=80), recorder())
    module = SimpleNamespace(
        finished_steps=5, val_loss=0.25, plan=SimpleNamespace(total_steps=100, epoch_at=lambda step: 0.1)
    )
    line.on_train_start(None, module)
    line.on_train_batch_end(None, module)
    assert file.getvalue() == ""
    line.on_validation_end(None, module)
    assert file.getvalue() == "step   5/100  val loss 0.2500  loss 0.512  12,436 tokens/s  78.5 GiB\n"


def test_a_terminal_gets_a_display_that_is_closed_at_the_end() -> None:
    file = io.StringIO()
    line: Any = ProgressLine(Console(file=file, width=80, force_terminal=True), recorder(INCIDENT))
    module = SimpleNamespace(
        finished_steps=0, val_loss=0.25, plan=SimpleNamespace(total_steps=100, epoch_at=lambda step: 0.1)
    )
    line.on_train_start(None, module)
    module.finished_steps = 40
    line.on_train_end(None, module)
    assert "step 40/100" in file.getvalue()
    assert "skipped" in file.getvalue()
    assert line._live is None
