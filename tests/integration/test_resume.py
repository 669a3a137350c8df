"""Stopped runs: they end cleanly, and continuing them equals never having stopped."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from loralab.config.load import to_yaml
from loralab.config.schema import TrainConfig
from loralab.data.report import DataFile
from loralab.errors import ConfigError, DataError, Interrupted
from loralab.modules.sft import SFTModule
from loralab.runs.folder import RunFolder, create_run
from loralab.training.fit import train
from loralab.training.resume import check_same_data, reopen

TIMES = ("train/tokens_per_s", "memory/")
DROPOUT = "lora.dropout=0.2"


class Crash(Exception):
    """Stands for anything that ends a run without warning."""


def crash() -> None:
    raise Crash


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def undisturbed(
    compose_tiny: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    return train(compose_tiny(tmp_path_factory.mktemp("undisturbed"), DROPOUT, "run.name=whole"))


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    """Does something in the middle of a step, once."""
    original = SFTModule.training_step

    def training_step(self: SFTModule, batch: Any, batch_idx: int) -> Any:
        if batch.step == step:
            action()
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SFTModule, "training_step", training_step)


def logged(run: RunFolder) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    kept = [{name: value for name, value in line.items() if not name.startswith(TIMES)} for line in lines]
    return [line for line in kept if line.keys() != {"step"}]


@pytest.mark.parametrize(
    ("step", "action", "error", "status", "kept"),
    [
        (5, send(signal.SIGTERM), Interrupted, "interrupted", 6),
        (2, send(signal.SIGINT), Interrupted, "interrupted", 3),
        (7, send(signal.SIGUSR1), Interrupted, "interrupted", 8),  # a validation is due after this step
        (6, crash, Crash, "failed", 4),  # back to the last validation's checkpoint
        (1, crash, Crash, "failed", 0),  # before the first checkpoint
    ],
)
def test_a_continued_run_equals_one_that_never_stopped(
    compose_tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    undisturbed: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    action: Callable[[], None],
    error: type[Exception],
    status: str,
    kept: int,
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, step, action)
        with pytest.raises(error):
            train(compose_tiny(tmp_path, DROPOUT, "run.name=stopped"))
    run = RunFolder(tmp_path / "train" / "stopped")
    assert json.loads(run.summary_path.read_text())["status"] == status
    progress = run.checkpoints_dir / "last" / "progress.json"
    assert (json.loads(progress.read_text())["step"] if progress.exists() else 0) == kept

    train(compose_tiny(tmp_path, "resume=stopped"))

    assert logged(run) == logged(undisturbed)
    ours, expected = (load_file(r.adapter_dir / "adapter_model.safetensors") for r in (run, undisturbed))
    assert ours.keys() == expected.keys()
    assert all(ours[name].equal(expected[name]) for name in ours)
    names = (
        "step",
        "train/loss",
        "val/loss",
        "base/val_perplexity",
        "train/supervised_tokens",
        "test/perplexity",
    )
    summaries = [json.loads(r.summary_path.read_text()) for r in (run, undisturbed)]
    assert [summaries[0][name] for name in names] == [summaries[1][name] for name in names]


def test_signals_are_given_back_after_a_run(undisturbed: RunFolder) -> None:
    # Whoever runs the tests in the background has them ignore the signal.
    assert signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)


def test_a_complete_run_is_not_continued(
    compose_tiny: Callable[..., TrainConfig], undisturbed: RunFolder
) -> None:
    with pytest.raises(ConfigError, match="resume=whole: the run is complete"):
        train(compose_tiny(undisturbed.path.parent.parent, "resume=whole"))


def test_changed_rows_are_refused(
    compose_tiny: Callable[..., TrainConfig], rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows_file.read_text())
    with monkeypatch.context() as patch:
        stop_at(patch, 5, send(signal.SIGTERM))
        with pytest.raises(
            Interrupted, match=r"SIGTERM at step 6 of 12: checkpoint saved.*resume=/.*/changed"
        ):
            train(compose_tiny(tmp_path, f"data.path={rows}", "run.name=changed"))
    rows.write_text(rows.read_text().replace("five", "six"))
    with pytest.raises(DataError, match=r"rows.jsonl changed since changed began"):
        train(compose_tiny(tmp_path, "resume=changed"))


def test_a_crash_in_a_validation_repeats_that_validation(
    compose_tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    undisturbed: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def validation_step(self: SFTModule, batch: Any, batch_idx: int) -> None:
        if self.finished_steps == 8:
            crash()
        original(self, batch, batch_idx)

    original = SFTModule.validation_step
    with monkeypatch.context() as patch:
        patch.setattr(SFTModule, "validation_step", validation_step)
        with pytest.raises(Crash):
            train(compose_tiny(tmp_path, DROPOUT, "run.name=stopped", "callbacks.checkpoint_every=1"))
    train(compose_tiny(tmp_path, "resume=stopped"))
    run = RunFolder(tmp_path / "train" / "stopped")
    assert logged(run) == logged(undisturbed)


def test_a_signal_in_the_comparison_stops_the_run_and_resume_finishes_it(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("loralab.training.fit.compare", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=r"SIGTERM. Continue with: python train.py resume=/.*/cut"):
            train(compose_tiny(tmp_path, "run.name=cut", "trainer.max_steps=4"))
    run = train(compose_tiny(tmp_path, "resume=cut"))
    summary = json.loads(run.summary_path.read_text())
    assert summary["status"] == "completed"
    assert summary["test/perplexity"] < summary["base/test_perplexity"]


def test_a_damaged_checkpoint_is_noticed_and_the_best_one_taken(
    compose_tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    undisturbed: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 6, crash)
        with pytest.raises(Crash):
            train(compose_tiny(tmp_path, DROPOUT, "run.name=stopped"))
    run = RunFolder(tmp_path / "train" / "stopped")
    (run.checkpoints_dir / "last" / "trainer_state.pt").write_bytes(b"")
    capfd.readouterr()
    train(compose_tiny(tmp_path, "resume=stopped"))
    printed = capfd.readouterr().out
    assert "trainer_state.pt is damaged" in printed
    assert "checkpoints/best" in printed
    assert logged(run) == logged(undisturbed)


def test_a_diverged_run_stops_with_advice_and_never_becomes_best(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SFTModule.item_losses

    def item_losses(self: SFTModule, batch: Any) -> Any:
        parts = original(self, batch)
        return parts._replace(losses=parts.losses * float("nan")) if self.finished_steps >= 6 else parts

    monkeypatch.setattr(SFTModule, "item_losses", item_losses)
    with pytest.raises(ConfigError, match=r"loss is nan after step 8.*optim.lr=0.005. Use a lower rate"):
        train(compose_tiny(tmp_path, "run.name=nan"))
    progress = tmp_path / "train" / "nan" / "checkpoints" / "best" / "progress.json"
    assert json.loads(progress.read_text())["step"] == 4


@pytest.mark.parametrize(
    ("typed", "batch_size", "log_every"),
    [
        (["resume=r"], 2, 3),
        (["resume=r", "eval.batch_size=7"], 7, 3),
        (["resume=r", "callbacks=quiet"], 2, 5),
    ],
)
def test_resume_keeps_the_runs_own_settings_unless_typed(
    compose_tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    typed: list[str],
    batch_size: int,
    log_every: int,
) -> None:
    run = create_run(str(tmp_path), "train", "r")
    before = compose_tiny(tmp_path, "eval.batch_size=2", "callbacks.log_every=3")
    run.config_path.write_text(to_yaml(before))
    now = compose_tiny(tmp_path, *typed)
    _, config = reopen(now, typed)
    assert (config.eval.batch_size, config.callbacks.log_every) == (batch_size, log_every)


def test_file_that_came_into_the_folder_is_refused(tmp_path: Path) -> None:
    run = create_run(str(tmp_path), "train", "r")
    before = [DataFile("rows/a.jsonl", "1" * 64)]
    run.manifest_path.write_text(json.dumps({"data": [dataclasses.asdict(file) for file in before]}))
    check_same_data(run, before)
    with pytest.raises(DataError, match=r"rows/b.jsonl is new since r began"):
        check_same_data(run, [*before, DataFile("rows/b.jsonl", "2" * 64)])
    with pytest.raises(DataError, match=r"rows/a.jsonl is gone since r began"):
        check_same_data(run, [])
    with pytest.raises(DataError, match=r"rows/a.jsonl changed since r began"):
        check_same_data(run, [DataFile("rows/a.jsonl", "3" * 64)])
