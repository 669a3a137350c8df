"""Runs that are killed without warning, at random points of a seed, and taken up each time."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loralab.config.schema import TrainConfig
from loralab.runs.compare import compare_runs
from loralab.runs.folder import RunFolder
from loralab.runs.verify import verify_run

SEED = 5
LIMITS = {"step": (2, 0.02), "validation": (1, 0.01), "checkpoint write": (2, 0.01)}
"""The latest call that is the last, and about how long a call takes in seconds."""


def test_a_run_killed_again_and_again_equals_one_left_alone(
    compose_tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(repository / "benchmarks")])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import killing

    quick = (
        "eval=none",
        "quant=none",
        "lora.dropout=0.2",
        "trainer.threads=1",
        "callbacks.checkpoint_every=1",
    )
    log = tmp_path / "log.txt"
    alone = compose_tiny(tmp_path, *quick, "run.name=alone")
    assert killing.run_process(alone, None, log) == 0, log.read_text()

    points = [killing.WRITE, killing.STEP, killing.VALIDATION, killing.WRITE, killing.STEP]
    kills = killing.plan_kills(points, SEED, LIMITS)
    config = compose_tiny(tmp_path, *quick, "run.name=killed", "resume=auto")
    came = killing.disturb(config, kills, log)

    assert came == points
    runs = [RunFolder(tmp_path / "train" / name) for name in ("alone", "killed")]
    assert [(each.part, each.differences) for each in compare_runs(*runs) if each.differences] == []
    assert [verify_run(run) for run in runs] == [[], []]
    assert [item.name for item in runs[1].checkpoints_dir.glob(".*")] == []
