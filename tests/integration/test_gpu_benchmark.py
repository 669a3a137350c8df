"""The benchmark for a GPU, tried without one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu.py", *words]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(repository / "src")}
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)


def test_every_goal_trains_the_same_tiny_model(repository: Path) -> None:
    done = run(repository, "--tiny")
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [each["goal"] for each in runs] == ["plain", "recomputation", "low_memory"]
    # Random weights know nothing of 256 tokens.
    assert runs[0]["first_loss"] == pytest.approx(math.log(256), abs=0.05)
    assert all(each["first_loss"] == runs[0]["first_loss"] for each in runs)
    assert all(each["tokens_per_s"] > 0 for each in runs)


def test_without_a_gpu_it_says_so_in_a_line_and_writes_nothing(repository: Path) -> None:
    results = repository / "benchmarks" / "results"
    before = sorted((path.name, path.stat().st_mtime_ns) for path in results.iterdir())
    done = run(repository)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "needs a GPU" in done.stderr
    assert sorted((path.name, path.stat().st_mtime_ns) for path in results.iterdir()) == before
