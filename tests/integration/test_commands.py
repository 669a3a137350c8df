"""The commands as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def tiny_overrides(tiny_model_dir: Path, rows_file: Path, tmp_path: Path) -> list[str]:
    return [
        f"model.path={tiny_model_dir}",
        "data=file",
        f"data.path={rows_file}",
        "data.max_length=256",
        f"run.outputs_dir={tmp_path}",
    ]


def test_multirun_makes_one_folder_per_combination(
    repository: Path, tiny_overrides: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "train.py", "-m", "lora=r8,r16", "optim.lr=2e-4,1e-3", "trainer.max_steps=3"]
    done = subprocess.run([*command, *tiny_overrides], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent for path in (tmp_path / "train").glob("*/summary.json"))
    assert len(runs) == 4
    typed = {tuple((run / "overrides.yaml").read_text().splitlines()[:2]) for run in runs}
    expected = {
        (f"- lora={rank}", f"- optim.lr={lr}") for rank in ("r8", "r16") for lr in ("0.0002", "0.001")
    }
    assert typed == expected
    for run in runs:
        assert json.loads((run / "summary.json").read_text())["step"] == 3
        assert done.stdout.count(f"run folder: {run}") == 2


def test_an_interrupt_exits_with_130_and_resume_finishes(
    repository: Path, tiny_overrides: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "train.py", *tiny_overrides, "run.name=long", "trainer.max_steps=2000"]
    process = subprocess.Popen(
        [*command, "trainer.val_every=2000"],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "train" / "long" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not metrics.exists() or len(metrics.read_text().splitlines()) < 5):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"python train.py resume={tmp_path}/train/long" in errors
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "train" / "long" / "summary.json").read_text())["status"] == "interrupted"
    refused = subprocess.run(
        [sys.executable, "train.py", "resume=long", "lora.r=4", f"run.outputs_dir={tmp_path}"],
        cwd=repository, capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "lora.r: 8 in the run, 4 now" in refused.stderr


def test_help_of_evaluate_answers(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "evaluate.py", "--help"], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "run=RUN" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["train.py"], ["-m", "loralab.cli.main"]], ids=["train", "loralab"])
def test_help_that_nobody_reads_ends_quietly(repository: Path, words: list[str], unbuffered: str) -> None:
    """Help that waits in a buffer is written at the very end."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        command, told = [sys.executable, *words, "--help"], {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            command, cwd=repository, env=told, stdout=nobody, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "")
