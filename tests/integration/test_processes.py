"""Runs in several processes: as torchrun starts them on two machines, and as loralab does on one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from loralab.config.schema import TrainConfig
from loralab.runs.compare import compare_runs
from loralab.runs.folder import RunFolder, read_json
from loralab.runs.verify import verify_run
from loralab.training.fit import train

TOLERANCE = 1e-5
"""Of losses and weights in float32: sums of the same numbers in another order."""
LONGEST_S = 60.0
"""How long a run may go on after one of its processes died."""
SHOWN = ("train/loss", "train/grad_norm", "val/loss", "val/prompt_loss")


@pytest.fixture
def words(tiny_model_dir: Path, rows_file: Path, tmp_path: Path) -> list[str]:
    """What a user would type for a run on the tiny model."""
    return [
        f"model.path={tiny_model_dir}", "data=file", f"data.path={rows_file}", "data.test_fraction=0.2",
        "data.max_length=256", "trainer.precision=fp32", "trainer.accelerator=cpu", "trainer.val_every=4",
        "optim.lr=5e-3", "lora=r8", "callbacks=quiet", "callbacks.log_every=1", "eval=none", "quant=none",
        f"run.outputs_dir={tmp_path}",
    ]  # fmt: skip


def start(repository: Path, *words: str, launcher: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Starts `train.py` with one thread per process."""
    command = [sys.executable, *launcher, "train.py", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=repository, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """Waits for a run to end with a code; returns what it printed as errors."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return err


def curves(run: Path) -> list[tuple[int, str, float]]:
    """Every loss and gradient norm of a run."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], name, line[name]) for line in lines for name in SHOWN if name in line]


def assert_same(run: Path, expected: Path) -> None:
    """Losses, gradient norms and final weights agree."""
    ours, theirs = curves(run), curves(expected)
    assert [each[:2] for each in ours] == [each[:2] for each in theirs]
    for (step, name, value), (_, _, other) in zip(ours, theirs, strict=True):
        assert value == pytest.approx(other, abs=TOLERANCE), (step, name)
    weights, others = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (run, expected))
    for name, tensor in weights.items():
        assert (tensor - others[name]).abs().max() < TOLERANCE, name


def test_two_processes_and_two_machines_train_as_one_process_does(
    compose_tiny: Callable[..., TrainConfig], words: list[str], repository: Path, tmp_path: Path
) -> None:
    # The last step of the epoch has fewer rows than the others.
    one = train(compose_tiny(
        tmp_path, "eval=none", "quant=none", "callbacks.log_every=1", "trainer.batch_size=8", "run.name=one",
    ))  # fmt: skip
    length = ("trainer.max_steps=12", "trainer.batch_size=4")
    two = start(repository, *words, *length, "run.name=two", "trainer=ddp", "trainer.devices=2")
    finish(two)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    machines = []
    for number in ("0", "1"):
        torchrun = ("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--node-rank",
                    number, "--master-addr", "127.0.0.1", "--master-port", port)  # fmt: skip
        options = (*length, "run.name=machines", "trainer=multinode")
        machines.append(start(repository, *words, *options, launcher=torchrun))
    for machine in machines:
        finish(machine)
    answers = ("eval.enabled=true", "eval.max_examples=2", "eval.max_new_tokens=4")
    options = (*words, *length, *answers, "run.name=sharded", "trainer=fsdp", "trainer.devices=2")
    finish(start(repository, *options))
    assert len((tmp_path / "train" / "sharded" / "predictions.jsonl").read_text().splitlines()) == 2
    for name in ("two", "machines", "sharded"):
        assert_same(tmp_path / "train" / name, one.path)
        run = RunFolder(tmp_path / "train" / name)
        assert verify_run(run) == []
        assert read_json(run.summary_path)["status"] == "completed"


def wait_for_step(run: Path, step: int) -> None:
    """Waits until a run has written a step."""
    for _ in range(1200):
        path = run / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} never came")


def ranks_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The processes that a run has started, in the order of their numbers."""
    children = [child for child in psutil.Process(process.pid).children() if "train.py" in child.cmdline()]
    return sorted(children, key=lambda child: int(child.environ()["RANK"]))


def test_a_run_goes_on_after_a_signal_and_after_the_death_of_a_process(
    words: list[str], repository: Path, tmp_path: Path
) -> None:
    options = (
        *words, "trainer=ddp", "trainer.devices=2", "trainer.max_steps=60", "trainer.batch_size=2",
        "lora.dropout=0.2", "callbacks.checkpoint_every=1",
    )  # fmt: skip
    finish(start(repository, *options, "run.name=alone"))
    run = tmp_path / "train" / "disturbed"

    stopped = start(repository, *options, "run.name=disturbed")
    wait_for_step(run, 6)
    stopped.send_signal(signal.SIGTERM)
    said = finish(stopped, 130)
    assert "checkpoint saved" in said
    assert "Continue with: python train.py resume=" in said

    resume = (f"resume={run}", f"run.outputs_dir={tmp_path}")
    for rank, survivor in ((1, ""), (0, "process 1: ")):
        broken = start(repository, *resume)
        wait_for_step(run, 20 + 15 * (1 - rank))
        killed_at = time.monotonic()
        ranks_of(broken)[rank].kill()
        said = finish(broken, 2)
        assert time.monotonic() - killed_at < LONGEST_S
        assert f"{survivor}error: another process of the run ended" in said
        assert f"Continue with: python train.py resume={run}" in said
        assert f"error: process {rank} of 2 was ended by SIGKILL" in said
        assert "Traceback" not in said

    finish(start(repository, *resume))
    compared = compare_runs(RunFolder(tmp_path / "train" / "alone"), RunFolder(run))
    assert [(each.part, each.differences) for each in compared if each.differences] == []


def test_a_fault_is_said_once_and_ends_all_processes(
    words: list[str], repository: Path, tmp_path: Path
) -> None:
    wrong = start(repository, *words, "trainer=ddp", "trainer.devices=2", "data.max_length=100000")
    said = finish(wrong, 2)
    assert said.count("error:") == 1
    assert "max_length" in said


def test_several_machines_need_someone_who_starts_them(
    words: list[str], repository: Path, tmp_path: Path
) -> None:
    said = finish(start(repository, *words, "trainer=multinode"), 2)
    assert "trainer.num_nodes=2: start the run on every machine" in said
