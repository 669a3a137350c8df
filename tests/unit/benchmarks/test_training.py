"""What is read from the folder of a run."""

import json
from pathlib import Path

import pytest
from training import logged_steps, speed


def test_only_steps_are_read_from_the_metrics(tmp_path: Path) -> None:
    lines = [
        {"step": 0, "val/loss": 3.0},
        {"step": 1, "train/loss": 2.0},
        {"step": 1, "memory/loaded_peak_gib": 1.0},
        {"step": 2, "train/loss": 1.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert [line["step"] for line in logged_steps(tmp_path)] == [1, 2]


def test_a_run_without_metrics_has_no_steps_yet(tmp_path: Path) -> None:
    assert logged_steps(tmp_path) == []


def test_speed_adds_up_tokens_and_seconds() -> None:
    steps = [
        {"train/tokens": 100, "train/supervised_tokens": 50, "train/tokens_per_s": 50.0},
        {"train/tokens": 300, "train/supervised_tokens": 150, "train/tokens_per_s": 100.0},
    ]

    # 100 / 50 and 300 / 100: five seconds.
    assert speed(steps) == pytest.approx({"tokens_per_s": 80.0, "supervised_per_s": 40.0})
