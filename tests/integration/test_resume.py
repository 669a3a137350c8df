"""Stopped runs: they end cleanly, and continuing them equals never having stopped."""

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from loralab.config.load import to_yaml
from loralab.config.schema import TrainConfig
from loralab.data import shares
from loralab.data.collate import MicroBatch
from loralab.data.report import DataFile
from loralab.errors import ConfigError, DataError, Interrupted, StorageError
from loralab.modules.row_threads import RowThreads
from loralab.modules.sft import SFTModule
from loralab.optim.master import MasterWeights
from loralab.runs.compare import compare_runs
from loralab.runs.folder import RunFolder, create_run
from loralab.runs.lock import hold
from loralab.runs.series import saved_steps
from loralab.runs.verify import verify_run
from loralab.training.fit import train
from loralab.training.resume import check_same_data, explain_resume, reopen

DROPOUT = "lora.dropout=0.2"
QUICK = "eval=none"
Patch = pytest.MonkeyPatch


class Crash(Exception):
    """Stands for anything that ends a run without warning."""


def crash(*args: object) -> None:
    raise Crash


def crash_in_step(patch: Patch) -> None:
    """Crashes after a forward pass, which has drawn its dropout by then."""
    original = SFTModule.item_losses
    patch.setattr(SFTModule, "item_losses", lambda self, batch: crash(original(self, batch)))


def crash_in_update(patch: Patch) -> None:
    patch.setattr(MasterWeights, "publish", crash)


def fill_disk(patch: Patch) -> None:
    patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))


def send(number: int) -> Callable[[Patch], None]:
    return lambda patch: os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def undisturbed(
    compose_tiny: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    return train(compose_tiny(tmp_path_factory.mktemp("undisturbed"), DROPOUT, QUICK, "run.name=whole"))


def stop_at(patch: Patch, step: int, action: Callable[[Patch], None]) -> None:
    """Does something in the middle of a step, once."""
    original = SFTModule.training_step

    def training_step(self: SFTModule, batch: Any, batch_idx: int) -> Any:
        if batch.step == step:
            action(patch)
        return original(self, batch, batch_idx)

    patch.setattr(SFTModule, "training_step", training_step)


def assert_same(run: RunFolder, expected: RunFolder) -> None:
    assert {each.part: each.differences for each in compare_runs(run, expected) if each.differences} == {}
    ours, theirs = (load_file(r.adapter_dir / "adapter_model.safetensors") for r in (run, expected))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("step", "action", "error", "status", "kept", "said"),
    [
        (
            5,
            send(signal.SIGTERM),
            Interrupted,
            "interrupted",
            6,
            "SIGTERM at step 6 of 12: checkpoint saved. Con",
        ),
        # A validation is due after this step: it is left for later, also where it is the last of the run.
        (
            7,
            send(signal.SIGUSR1),
            Interrupted,
            "interrupted",
            8,
            "at step 8 of 12: checkpoint saved; its valid",
        ),
        (
            11,
            send(signal.SIGINT),
            Interrupted,
            "interrupted",
            12,
            "saved; its validation is repeated. Continue",
        ),
        (6, crash_in_step, Crash, "failed", 6, "checkpoint of step 6 saved after the error."),
        # Back to the last validation's checkpoint.
        (
            6,
            crash_in_update,
            Crash,
            "failed",
            4,
            "no checkpoint of this step: the error came while the weights",
        ),
        (7, fill_disk, StorageError, "failed", 4, "checkpoints is full: a checkpoint needs"),
    ],
    ids=["between", "validation", "last validation", "crash", "crash in update", "full disk"],
)
def test_a_continued_run_equals_one_that_never_stopped(
    compose_tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    undisturbed: RunFolder,
    monkeypatch: Patch,
    capfd: pytest.CaptureFixture[str],
    step: int,
    action: Callable[[Patch], None],
    error: type[Exception],
    status: str,
    kept: int,
    said: str,
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, step, action)
        with pytest.raises(error) as raised:
            train(compose_tiny(tmp_path, DROPOUT, QUICK, "run.name=stopped"))
    run = RunFolder(tmp_path / "train" / "stopped")
    assert said in f"{raised.value}\n{capfd.readouterr().out}"
    assert json.loads(run.summary_path.read_text())["status"] == status
    assert json.loads((run.checkpoints_dir / "last" / "progress.json").read_text())["step"] == kept

    train(compose_tiny(tmp_path, "resume=stopped"))

    assert_same(run, undisturbed)
    assert verify_run(run) == []


def test_signals_are_given_back_after_a_run(undisturbed: RunFolder) -> None:
    # Whoever runs the tests in the background has them ignore the signal.
    assert signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)


def test_a_complete_run_is_not_continued(
    compose_tiny: Callable[..., TrainConfig], undisturbed: RunFolder
) -> None:
    with pytest.raises(ConfigError, match="resume=whole: the run is complete"):
        train(compose_tiny(undisturbed.path.parent.parent, "resume=whole"))


def test_changed_rows_are_refused(
    compose_tiny: Callable[..., TrainConfig], rows_file: Path, tmp_path: Path, monkeypatch: Patch
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


def test_a_crash_in_a_validation_repeats_that_validation_and_no_step(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path, undisturbed: RunFolder, monkeypatch: Patch
) -> None:
    def validation_step(self: SFTModule, batch: Any, batch_idx: int) -> None:
        if self.finished_steps == 8:
            crash()
        original(self, batch, batch_idx)

    original = SFTModule.validation_step
    with monkeypatch.context() as patch:
        patch.setattr(SFTModule, "validation_step", validation_step)
        with pytest.raises(Crash):
            train(compose_tiny(tmp_path, DROPOUT, QUICK, "run.name=stopped"))
    run = RunFolder(tmp_path / "train" / "stopped")
    assert saved_steps(run.checkpoints_dir) == [8, 4]
    train(compose_tiny(tmp_path, "resume=stopped"))
    assert_same(run, undisturbed)


def test_a_signal_in_the_comparison_stops_the_run_and_resume_finishes_it(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: Patch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("loralab.training.fit.compare", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=r"SIGTERM. Continue with: python train.py resume=/.*/cut"):
            train(compose_tiny(tmp_path, "run.name=cut", "trainer.max_steps=4"))
    run = train(compose_tiny(tmp_path, "resume=cut"))
    summary = json.loads(run.summary_path.read_text())
    assert summary["status"] == "completed"
    assert summary["test/perplexity"] < summary["base/test_perplexity"]


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_taken(
    compose_tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    undisturbed: RunFolder,
    monkeypatch: Patch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 10, crash_in_step)
        with pytest.raises(Crash):
            train(compose_tiny(tmp_path, DROPOUT, QUICK, "run.name=stopped", "callbacks.keep_last=3"))
    run = RunFolder(tmp_path / "train" / "stopped")
    assert saved_steps(run.checkpoints_dir) == [10, 8, 4]
    (run.checkpoints_dir / "step-10" / "trainer_state.pt").write_bytes(b"")
    (run.checkpoints_dir / "step-8" / "progress.json").unlink()
    capfd.readouterr()
    train(compose_tiny(tmp_path, "resume=stopped"))
    printed = capfd.readouterr().out
    assert "step-10/trainer_state.pt is damaged" in printed
    assert "step-8/progress.json is missing" in printed
    assert "warning: going on from step-4; what was logged after it is written again." in printed
    assert_same(run, undisturbed)


def test_a_diverged_run_stops_with_advice_and_never_becomes_best(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: Patch
) -> None:
    original = SFTModule.item_losses

    def item_losses(self: SFTModule, batch: Any) -> Any:
        parts = original(self, batch)
        return parts._replace(losses=parts.losses * float("nan")) if self.finished_steps >= 6 else parts

    monkeypatch.setattr(SFTModule, "item_losses", item_losses)
    with pytest.raises(ConfigError, match=r"loss is nan after step 8.*optim.lr=0.005. Use a lower rate"):
        train(compose_tiny(tmp_path, "run.name=nan", "eval.prompt_loss=false"))
    progress = tmp_path / "train" / "nan" / "checkpoints" / "best" / "progress.json"
    assert json.loads(progress.read_text())["step"] == 4


def test_a_complete_run_is_trained_on_where_that_is_allowed(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: Patch
) -> None:
    quick = ("eval=none", "quant=none")
    train(compose_tiny(tmp_path, *quick, "run.name=short", "trainer.max_steps=4"))
    more = ["resume=short", "trainer.max_steps=6", "resume_changes=trainer.max_steps"]
    monkeypatch.setattr("loralab.training.fit.task_overrides", lambda: more)
    run = train(compose_tiny(tmp_path, *more))
    assert json.loads(run.summary_path.read_text())["step"] == 6
    assert "max_steps: 6" in run.config_path.read_text()
    assert json.loads(run.manifest_path.read_text())["resumed"] == [
        {"step": 4, "changes": ["trainer.max_steps: 4 in the run, 6 now"]}
    ]
    assert verify_run(run) == []


def begun(compose_tiny: Callable[..., TrainConfig], outputs: Path, name: str, *typed: str) -> RunFolder:
    run = create_run(str(outputs), "train", name)
    run.config_path.write_text(to_yaml(compose_tiny(outputs, *typed)))
    return run


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
    begun(compose_tiny, tmp_path, "r", "eval.batch_size=2", "callbacks.log_every=3", "optim.lr=3e-3")
    resumed = reopen(compose_tiny(tmp_path, *typed), typed)
    assert resumed is not None
    assert (resumed.config.eval.batch_size, resumed.config.callbacks.log_every) == (batch_size, log_every)
    assert resumed.config.optim.lr == 3e-3
    assert resumed.changes == ()


def test_a_config_that_differs_is_listed_and_refused_unless_allowed(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    begun(compose_tiny, tmp_path, "r", "optim.lr=1e-3")
    typed = ["resume=r", "optim.lr=2e-3", "trainer.grad_clip=null", "logger=wandb"]
    with pytest.raises(ConfigError) as refused:
        reopen(compose_tiny(tmp_path, *typed), typed)
    assert str(refused.value).splitlines() == [
        "resume=r: the config differs from that of r:",
        "  trainer.grad_clip: 1.0 in the run, null now",
        "  optim.lr: 0.001 in the run, 0.002 now",
        "  Leave them out, or allow them with 'resume_changes=[trainer.grad_clip,optim.lr]'.",
    ]
    for allowed in ("resume_changes=true", "resume_changes=[trainer,optim.lr]"):
        resumed = reopen(compose_tiny(tmp_path, *typed, allowed), [*typed, allowed])
        assert resumed is not None
        assert (resumed.config.optim.lr, resumed.config.trainer.grad_clip) == (2e-3, None)
        assert resumed.config.logger.name == "wandb"
        assert [change.key for change in resumed.changes] == ["trainer.grad_clip", "optim.lr"]


def test_auto_takes_the_newest_unfinished_run_of_the_same_config(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    now = compose_tiny(tmp_path, "resume=auto", "seed=1")
    other = dataclasses.replace(now, seed=3)
    assert reopen(now, []) is None
    assert explain_resume(None, now) == "resume=auto: no unfinished run to go on with; a new one starts"
    runs = [create_run(str(tmp_path), "train", name) for name in "abcde"]
    for run in runs:
        run.config_path.write_text(to_yaml(dataclasses.replace(now, seed=2 if run is runs[4] else 1)))
    for number, name in enumerate("abcde"):
        os.utime(tmp_path / "train" / name / "config.yaml", (number, number))
    runs[3].summary_path.write_text('{"status": "completed"}')
    with hold(runs[2]):
        resumed = reopen(now, [])
    assert resumed is not None
    assert resumed.run.run_id == "b"
    assert explain_resume(resumed, now) == "resume=auto: going on with b"
    assert reopen(other, []) is None
    assert explain_resume(None, other) == (
        "resume=auto: e is unfinished but differs (seed: 2 in the run, 3 now); a new run starts"
    )


def test_auto_with_a_name_is_about_that_run_alone(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    begun(compose_tiny, tmp_path, "a", "seed=1")
    absent = compose_tiny(tmp_path, "resume=auto", "run.name=b", "seed=1")
    assert reopen(absent, []) is None
    named = dataclasses.replace(absent, run=dataclasses.replace(absent.run, name="a"))
    resumed = reopen(named, [])
    assert resumed is not None
    assert resumed.run.run_id == "a"
    with pytest.raises(ConfigError, match="seed: 1 in the run, 2 now"):
        reopen(dataclasses.replace(named, seed=2), [])


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


def test_rows_side_by_side_go_on_bit_for_bit(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: Patch
) -> None:
    """Two threads, whichever is done first, on rows that begin alike."""
    monkeypatch.setattr(shares, "LEAST_TOKENS", 8)
    monkeypatch.setattr(shares, "MOST_UNEVEN", 2.0)
    sizes: list[int] = []
    original = RowThreads.shares

    def spy(self: RowThreads, batch: MicroBatch) -> list[MicroBatch]:
        found = original(self, batch)
        sizes.append(len(found) if all(each.shared_prefix for each in found) else 0)
        return found

    monkeypatch.setattr(RowThreads, "shares", spy)
    words = (QUICK, "trainer.threads=2", "trainer.batch_size=8")
    whole = train(compose_tiny(tmp_path, *words, "run.name=whole"))
    assert sizes.count(2) >= 12
    with monkeypatch.context() as patch:
        stop_at(patch, 5, send(signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(compose_tiny(tmp_path, *words, "run.name=stopped"))
    train(compose_tiny(tmp_path, "resume=stopped"))
    assert_same(RunFolder(tmp_path / "train" / "stopped"), whole)
