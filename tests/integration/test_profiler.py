"""Profiles of runs on the tiny model: they change nothing, and account for every moment."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError, Interrupted
from loralab.modules.sft import SFTModule
from loralab.runs.compare import compare_runs
from loralab.runs.folder import RunFolder, read_json
from loralab.training.fit import train

Compose = Callable[..., TrainConfig]
Patch = pytest.MonkeyPatch
QUICK = ("eval=none", "eval.watch_prompts=0", "trainer.val_every=12", "lora.dropout=0.2")
PROFILED = (
    "callbacks.profiler.enabled=true",
    "callbacks.profiler.first_step=2",
    "callbacks.profiler.steps=2",
)


def table(run: RunFolder) -> dict[str, Any]:
    return read_json(run.profile_dir / "table.json")


def times(run: RunFolder) -> dict[tuple[str, str], float]:
    return {(row["stage"], row["name"]): row["ms"] for row in table(run)["parts"]}


def trace(run: RunFolder, name: str = "trace.json.gz") -> list[dict[str, Any]]:
    return json.loads(gzip.decompress((run.profile_dir / name).read_bytes()))["traceEvents"]


def ranges(run: RunFolder) -> set[str]:
    return {event["name"] for event in trace(run) if event.get("cat") == "user_annotation"}


def assert_whole(run: RunFolder) -> None:
    """The parts of a step are the step."""
    found = table(run)
    assert sum(row["ms"] for row in found["parts"]) == pytest.approx(found["step_ms"], rel=1e-9)
    assert sum(row["share"] for row in found["parts"]) == pytest.approx(1)
    assert sum(row["ms"] for row in found["operators"]) < found["step_ms"]


def assert_nested(run: RunFolder) -> None:
    """Every range ends within the one that it began in."""
    found = [event for event in trace(run) if event.get("cat") == "user_annotation"]
    opened: list[dict[str, Any]] = []
    for event in sorted(found, key=lambda event: (event["ts"], -event["dur"])):
        while opened and opened[-1]["ts"] + opened[-1]["dur"] <= event["ts"]:
            opened.pop()
        ends = [each["ts"] + each["dur"] for each in (event, *opened[-1:])]
        # Times are rounded to nanoseconds.
        assert ends[0] <= ends[-1] + 0.002, (event["name"], opened[-1]["name"])
        opened.append(event)


def assert_same(run: RunFolder, expected: RunFolder) -> None:
    """Weights, optimizer, random generators and logged numbers are equal bit for bit."""
    compared = compare_runs(run, expected)
    assert [(each.part, each.differences) for each in compared if each.differences] == []


def on_step(patch: Patch, step: int, action: Callable[[], object]) -> None:
    """Does something at the beginning of a step."""
    original = SFTModule.training_step

    def training_step(self: SFTModule, batch: Any, batch_idx: int) -> Any:
        if batch.step == step:
            action()
        return original(self, batch, batch_idx)

    patch.setattr(SFTModule, "training_step", training_step)


class Traces(pl.Callback):
    """Remembers at the end of training what a profile has left on the module and the trainer."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parts = list(pl_module.modules())
        self.hooks = sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in parts)
        self.replaced = {"training_step", "item_losses", "manual_backward", "_add_up"} & set(vars(pl_module))
        self.replaced |= {"publish"} & set(vars(pl_module.masters)) | {"run"} & set(vars(pl_module.limit))
        self.profiler = type(trainer.profiler).__name__


@pytest.fixture(scope="module")
def left() -> Traces:
    return Traces()


@pytest.fixture(scope="module")
def run(compose_tiny: Compose, tmp_path_factory: pytest.TempPathFactory, left: Traces) -> Iterator[RunFolder]:
    outputs = tmp_path_factory.mktemp("profiled")
    yield train(compose_tiny(outputs, *QUICK, *PROFILED, "run.name=profiled"), [left])


def test_a_profiled_run_equals_one_that_is_not_and_leaves_nothing_behind(
    compose_tiny: Compose, tmp_path: Path, run: RunFolder, left: Traces
) -> None:
    plain = Traces()
    assert_same(run, train(compose_tiny(tmp_path, *QUICK, "run.name=plain"), [plain]))
    assert left.replaced == plain.replaced == set()
    assert (left.hooks, left.profiler) == (plain.hooks, plain.profiler)


def test_every_moment_of_a_step_has_a_part(run: RunFolder) -> None:
    found = table(run)
    assert (found["first_step"], found["num_steps"], found["device"]) == (3, 2, "cpu")
    assert_whole(run)
    expected = {
        ("data", "waiting for the loader"), ("data", "to the device"),
        *(("forward", name) for name in ("embedding", "attention", "norms", "MLP activation")),
        *(("backward", name) for name in ("attention", "norms", "MLP activation", "gathering gradients")),
        *((stage, "linear layers with adapter") for stage in ("forward", "backward")),
        *((stage, "output head and loss") for stage in ("forward", "backward")),
        *((stage, "rest of the layers") for stage in ("forward", "backward")),
        *(("optimizer", name) for name in ("clipping and checks", "update", "publishing")),
        ("rest", "callbacks and logging"), ("rest", "loop"), ("backward", "between layers"),
    }  # fmt: skip
    assert set(times(run)) == expected
    calls = {(row["stage"], row["name"]): row["calls"] for row in found["parts"]}
    # Two layers of seven projections, in one micro-batch; A and B of each gather a gradient.
    assert calls["forward", "linear layers with adapter"] == 14
    assert calls["forward", "attention"] == 2
    assert calls["forward", "norms"] == 5
    assert calls["backward", "linear layers with adapter"] >= 14
    assert calls["backward", "gathering gradients"] == 28


def test_throughput_is_that_of_the_steps(run: RunFolder) -> None:
    lines = map(json.loads, run.metrics_path.read_text().splitlines())
    tokens = {line["step"]: line["train/tokens"] for line in lines if "train/tokens" in line}
    found = table(run)
    seconds = found["step_ms"] * found["num_steps"] / 1000
    assert found["tokens_per_s"] == pytest.approx((tokens[3] + tokens[4]) / seconds)
    assert found["warmup_steps"] == 1
    assert found["tokens_per_s_before"] > 0


def test_the_trace_has_the_ranges_of_a_step(run: RunFolder) -> None:
    assert {
        "step 3", "step 4", "data: waiting for the loader", "forward", "backward", "optimizer", "publishing",
        "attention: model.layers.1.self_attn", "output head and loss: lm_head",
        "linear layers with adapter: model.layers.0.mlp.down_proj",
        "callbacks and logging: Recorder.on_train_batch_end",
    } <= ranges(run)  # fmt: skip
    assert "step 5" not in ranges(run)


def test_the_report_shows_the_table(run: RunFolder) -> None:
    page = (run.path / "report.html").read_text()
    assert "Where a step&#39;s time goes" in page or "Where a step's time goes" in page
    assert "forward: linear layers with adapter" in page
    assert "| forward: linear layers with adapter |" in (run.profile_dir / "table.md").read_text()


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_packed_rows_and_recomputed_layers_are_accounted_for(
    compose_tiny: Compose, tmp_path: Path, quant: str
) -> None:
    options = (
        *QUICK, "data.packing=true", "trainer.gradient_checkpointing=true", "trainer.accumulation=2",
        "trainer.batch_size=1", f"quant={quant}", "trainer.max_steps=4",
    )  # fmt: skip
    plain = train(compose_tiny(tmp_path, *options, "run.name=plain"))
    run = train(compose_tiny(tmp_path, *options, *PROFILED, "run.name=profiled"))
    assert_same(run, plain)
    assert_whole(run)
    assert_nested(run)
    assert {name for stage, name in times(run) if stage == "recomputed"} == {
        "attention", "linear layers with adapter", "norms", "MLP activation",
    }  # fmt: skip


def test_where_memory_runs_out_the_ranges_close(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch
) -> None:
    original, failed = SFTModule.item_losses, []

    def item_losses(self: SFTModule, batch: Any) -> Any:
        parts = original(self, batch)
        if self.training and self.finished_steps == 2 and not failed:
            failed.append(batch)
            raise torch.OutOfMemoryError("out of memory, as a test wants it")
        return parts

    monkeypatch.setattr(SFTModule, "item_losses", item_losses)
    run = train(compose_tiny(tmp_path, *QUICK, *PROFILED, "trainer.max_steps=4", "run.name=full"))
    assert failed
    assert_whole(run)
    assert_nested(run)


def test_a_validation_ends_the_stretch(compose_tiny: Compose, tmp_path: Path) -> None:
    options = ("trainer.val_every=4", "callbacks.profiler.steps=9", "trainer.max_steps=8", "run.name=short")
    run = train(compose_tiny(tmp_path, *QUICK, *PROFILED, *options))
    assert (table(run)["first_step"], table(run)["num_steps"]) == (3, 2)
    options = (
        "trainer.val_every=2",
        "callbacks.profiler.first_step=4",
        "trainer.max_steps=8",
        "run.name=after",
    )
    run = train(compose_tiny(tmp_path, *QUICK, *PROFILED, *options))
    assert (table(run)["first_step"], table(run)["num_steps"]) == (5, 2)
    assert_whole(run)


def test_an_interrupted_stretch_is_written_and_not_repeated(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch
) -> None:
    options = (*QUICK, *PROFILED, "callbacks.profiler.steps=9")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        on_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train(compose_tiny(tmp_path, *options, "run.name=stopped"))
    run = RunFolder(tmp_path / "train" / "stopped")
    assert (table(run)["first_step"], table(run)["num_steps"]) == (3, 2)
    assert_whole(run)
    before = table(run)
    train(compose_tiny(tmp_path, *QUICK, f"resume={run.path}"))
    assert read_json(run.summary_path)["status"] == "completed"
    assert table(run) == before


def test_a_run_that_goes_on_warms_up_anew(compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        on_step(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train(compose_tiny(tmp_path, *QUICK, *PROFILED, "callbacks.profiler.first_step=4", "run.name=early"))
    run = RunFolder(tmp_path / "train" / "early")
    assert not run.profile_dir.exists()
    train(compose_tiny(tmp_path, *QUICK, f"resume={run.path}"))
    # Two steps were taken, and four are warm-up again.
    assert table(run)["first_step"] == 7


def test_too_few_steps_left_are_said(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        on_step(patch, 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train(compose_tiny(tmp_path, *QUICK, *PROFILED, "callbacks.profiler.first_step=9", "run.name=late"))
    run = RunFolder(tmp_path / "train" / "late")
    train(compose_tiny(tmp_path, *QUICK, f"resume={run.path}"))
    assert "no profile: 4 steps are left and callbacks.profiler.first_step=9" in capsys.readouterr().out
    assert not run.profile_dir.exists()


def test_an_error_in_the_first_profiled_step_leaves_its_trace(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    on_step(monkeypatch, 2, fail)
    with pytest.raises(ZeroDivisionError):
        train(compose_tiny(tmp_path, *QUICK, *PROFILED, "run.name=broken"))
    run = RunFolder(tmp_path / "train" / "broken")
    assert "step 3" in ranges(run)
    assert {path.name for path in run.profile_dir.iterdir()} == {"trace.json.gz"}


def test_a_full_disk_costs_the_profile_and_not_the_run(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Any, path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", full)
    run = train(compose_tiny(tmp_path, *QUICK, *PROFILED, "trainer.max_steps=5", "run.name=full"))
    assert read_json(run.summary_path)["status"] == "completed"
    assert "no profile: [Errno 28] No space left on device" in capsys.readouterr().out
    assert list(run.profile_dir.iterdir()) == []


def test_epochs_that_end_within_the_warm_up_are_refused(compose_tiny: Compose, tmp_path: Path) -> None:
    # 30 rows in steps of 4 are 8 steps.
    options = (
        "trainer.max_steps=null",
        "trainer.epochs=1",
        "callbacks.profiler.first_step=8",
        "run.name=few",
    )
    with pytest.raises(ConfigError, match=r"trainer.epochs=1 gives 8 steps, .* Use 9 or more steps"):
        train(compose_tiny(tmp_path, *QUICK, *PROFILED, *options))
    assert not (tmp_path / "train" / "few").exists()


def test_every_process_writes_a_trace_and_the_first_one_the_table(
    tiny_model_dir: Path, rows_file: Path, repository: Path, tmp_path: Path
) -> None:
    words = [
        f"model.path={tiny_model_dir}", "data=file", f"data.path={rows_file}", "data.test_fraction=0.2",
        "data.max_length=256", "trainer.precision=fp32", "trainer=ddp", "trainer.accelerator=cpu",
        "trainer.devices=2", "trainer.batch_size=4", "trainer.max_steps=5", "quant=none", "run.name=two",
        "callbacks=profiler", f"run.outputs_dir={tmp_path}", *QUICK, *PROFILED[1:],
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py", *words]
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder(tmp_path / "train" / "two")
    names = {"trace.json.gz", "trace-rank1.json.gz", "table.md", "table.json"}
    assert {path.name for path in run.profile_dir.iterdir()} == names
    assert_whole(run)
    assert times(run)["processes", "exchange"] > 0
    assert {"step 3", "step 4"} <= {event["name"] for event in trace(run, "trace-rank1.json.gz")}
    assert done.stdout.count("where a step's time goes") == 1
    # The tracer's own notes do not reach the terminal.
    assert "profiler_start" not in done.stderr
