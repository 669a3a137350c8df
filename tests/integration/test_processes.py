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


FAULTY = """
import os, signal, time

from loralab.data import datamodule

datamodule.EVAL_TOKENS = 0  # Several batches a validation: a signal comes between them.

def put_in_faults():
    import torch
    from loralab.modules.sft import SFTModule

    rank, faults, spoiled = int(os.environ["RANK"]), os.environ["FAULTS"].split(","), 3.0
    losses_before, step_before = SFTModule.item_losses, SFTModule.training_step
    validate_before = SFTModule.validation_step

    def training_step(self, batch, batch_idx):
        outputs = step_before(self, batch, batch_idx)
        if "spoil" in faults and batch.step == 9:
            for master in self.masters.parameters():
                master.data.fill_(spoiled)
            self.masters.publish()
        return outputs

    def item_losses(self, batch):
        rows, step = len(batch.input_ids), self.finished_steps
        weight = self.masters.parameters()[0].data
        if self.training:
            with open(os.path.join(os.environ["SEEN"], str(rank)), "a") as file:
                print(step, rows, weight.double().sum().item(), file=file)
            if "memory" in faults and rank == 1 and step == 2 and rows > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            if "death" in faults and rank == 1 and step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        parts = losses_before(self, batch)
        is_spoiled = self.training and weight.flatten()[0] > spoiled / 2
        return parts._replace(losses=parts.losses * 10) if is_spoiled else parts

    def validation_step(self, batch, batch_idx):
        if "signal" in faults and rank == 1 and self.finished_steps == 16:
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(0.5)
        validate_before(self, batch, batch_idx)

    SFTModule.training_step, SFTModule.item_losses = training_step, item_losses
    SFTModule.validation_step = validation_step
# The process that only starts the others does without PyTorch.
if "RANK" in os.environ:
    put_in_faults()
# Unlike runpy this leaves the name of the script, which the processes are started with.
path = os.path.abspath("train.py")
exec(compile(open(path).read(), path, "exec"))
"""


def start_faulty(
    repository: Path, folder: Path, faults: str, words: tuple[str, ...]
) -> "subprocess.Popen[str]":
    """Starts a run whose processes meet faults, and write down each micro-batch and a sum of the weights."""
    script = folder / "train_with_faults.py"
    script.write_text(FAULTY)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FAULTS": faults, "SEEN": str(folder)}
    command, pipe = [sys.executable, str(script), *words], subprocess.PIPE
    return subprocess.Popen(command, cwd=repository, env=environment, stdout=pipe, stderr=pipe, text=True)


def seen(folder: Path, rank: int) -> list[tuple[int, int, float]]:
    """Step, rows and sum of the weights of each micro-batch that a process has trained on."""
    lines = map(str.split, (folder / str(rank)).read_text().splitlines())
    return [(int(step), int(rows), float(weights)) for step, rows, weights in lines]


def test_what_happens_to_one_process_is_done_in_all_and_survives_signals_in_validations(
    words: list[str], repository: Path, tmp_path: Path
) -> None:
    options = (
        *words, "trainer=ddp", "trainer.devices=2", "trainer.max_steps=20", "trainer.batch_size=2",
        "trainer.val_every=8", "data.val_fraction=0.4", "optim.lr=1e-3", "run.name=faulty",
        "callbacks.stability.window=8", "callbacks.stability.warmup=4", "callbacks.stability.return_steps=4",
        "callbacks.stability.spike_factor=4",
    )  # fmt: skip
    run = RunFolder(tmp_path / "train" / "faulty")
    resume = (f"resume={run.path}", f"run.outputs_dir={tmp_path}")
    said = finish(start_faulty(repository, tmp_path, "memory,spoil,signal", options), 130)
    assert "checkpoint saved; its validation is repeated" in said
    # The validation that is made up for before training goes on is not Lightning's to stop either.
    said = finish(start_faulty(repository, tmp_path, "signal", resume), 130)
    assert "Continue with: python train.py resume=" in said
    assert read_json(run.summary_path)["status"] == "interrupted"
    finish(start_faulty(repository, tmp_path, "", resume))
    assert read_json(run.summary_path)["status"] == "completed"

    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    incidents = [line for line in lines if "incident/kind" in line]
    memory = next(line for line in incidents if line["incident/kind"] == "out of memory")
    assert memory["step"] == 3
    assert memory["incident/cause"].startswith("process 1: a micro-batch of 2 rows x ")
    assert len(memory["incident/rows"]) == 4
    assert memory["incident/cause"] in (run.path / "report.html").read_text()
    assert (15, "rolled back") in [(line["step"], line["incident/kind"]) for line in incidents]
    first, second = (seen(tmp_path, rank) for rank in (0, 1))
    # The limit that one process met holds in both, and after a stop.
    assert {rows for step, rows, _ in first if step <= 2} == {2}
    assert {rows for step, rows, _ in (*first, *second) if step > 2} == {1}
    assert {step: weights for step, _, weights in first} == {step: weights for step, _, weights in second}


def test_a_death_is_noticed_where_the_base_is_split(
    words: list[str], repository: Path, tmp_path: Path
) -> None:
    options = (*words, "trainer=fsdp", "trainer.devices=2", "trainer.max_steps=8", "run.name=split")
    said = finish(start_faulty(repository, tmp_path, "death", options), 2)
    assert "error: another process of the run ended" in said
    assert f"Continue with: python train.py resume={tmp_path / 'train' / 'split'}" in said
    assert "error: process 1 of 2 was ended by SIGKILL" in said
    assert "Traceback" not in said
