"""Faults put into runs on the tiny model: each is said, written down, and recovered from as promised."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError, Interrupted
from loralab.modules.sft import SFTModule
from loralab.runs.compare import compare_runs
from loralab.runs.folder import RunFolder
from loralab.training.fit import train

Compose = Callable[..., TrainConfig]
Patch = pytest.MonkeyPatch
SPOILED = 3.0
QUICK = (
    "eval=none", "quant=none", "lora.dropout=0.2", "eval.watch_prompts=0", "trainer.max_steps=24",
    "callbacks.stability.window=8", "callbacks.stability.warmup=4", "callbacks.stability.return_steps=4",
    "callbacks.stability.spike_factor=4", "optim.lr=1e-3",
)  # fmt: skip


def scale_losses(patch: Patch, steps: range, factor: float) -> None:
    """Multiplies the training losses of some steps."""
    original = SFTModule.item_losses

    def item_losses(self: SFTModule, batch: Any) -> Any:
        parts = original(self, batch)
        hit = self.training and self.finished_steps in steps
        return parts._replace(losses=parts.losses * factor) if hit else parts

    patch.setattr(SFTModule, "item_losses", item_losses)


def spoil_weights(patch: Patch, step: int) -> None:
    """Makes the update of one step a catastrophe: losses are tenfold for as long as its weights stay.

    The losses of a tiny model hardly depend on its adapter, so they are raised by hand.
    """
    step_before, losses_before = SFTModule.training_step, SFTModule.item_losses

    def training_step(self: SFTModule, batch: Any, batch_idx: int) -> Any:
        outputs = step_before(self, batch, batch_idx)
        if batch.step == step:
            for master in self.masters.parameters():
                master.data.fill_(SPOILED)
            self.masters.publish()
        return outputs

    def item_losses(self: SFTModule, batch: Any) -> Any:
        parts = losses_before(self, batch)
        is_spoiled = self.masters.parameters()[0].data.flatten()[0] > SPOILED / 2
        return parts._replace(losses=parts.losses * 10) if is_spoiled and self.training else parts

    patch.setattr(SFTModule, "training_step", training_step)
    patch.setattr(SFTModule, "item_losses", item_losses)


def run_out_of_memory(patch: Patch, step: int, most_rows: int) -> None:
    original = SFTModule.item_losses

    def item_losses(self: SFTModule, batch: Any) -> Any:
        if self.training and self.finished_steps == step and len(batch.input_ids) > most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, batch)

    patch.setattr(SFTModule, "item_losses", item_losses)


def stop_at(patch: Patch, step: int) -> None:
    original = SFTModule.training_step

    def training_step(self: SFTModule, batch: Any, batch_idx: int) -> Any:
        if batch.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    patch.setattr(SFTModule, "training_step", training_step)


def lines(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics_path.read_text().splitlines()]


def incidents(run: RunFolder) -> list[tuple[int, str]]:
    return [(line["step"], line["incident/kind"]) for line in lines(run) if "incident/kind" in line]


def summary(run: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.summary_path.read_text())
    return found


def test_a_healthy_run_has_no_incident(compose_tiny: Compose, tmp_path: Path) -> None:
    run = train(compose_tiny(tmp_path, *QUICK, "run.name=healthy"))
    assert incidents(run) == []
    assert summary(run)["stopped_early"] is None


@pytest.mark.parametrize(
    ("factor", "cause"), [(float("nan"), "not finite"), (10.0, "above")], ids=["nan", "tenfold"]
)
def test_a_bad_batch_is_left_out_and_named(
    compose_tiny: Compose,
    tmp_path: Path,
    monkeypatch: Patch,
    capfd: pytest.CaptureFixture[str],
    factor: float,
    cause: str,
) -> None:
    scale_losses(monkeypatch, range(9, 10), factor)
    run = train(compose_tiny(tmp_path, *QUICK, "run.name=bad"))
    assert incidents(run) == [(10, "skipped")]
    (line,) = [line for line in lines(run) if "incident/kind" in line]
    assert cause in line["incident/cause"]
    assert len(line["incident/rows"]) == 4
    assert all("rows.jsonl line " in row for row in line["incident/rows"])
    assert "incident: step 10 skipped: loss" in capfd.readouterr().out
    assert line["incident/rows"][0] in run.path.joinpath("report.html").read_text()
    assert summary(run)["status"] == "completed"
    assert [line["step"] for line in lines(run) if "train/loss" in line] == list(range(1, 25))


def test_weights_that_went_astray_are_taken_back(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        spoil_weights(patch, 9)
        run = train(compose_tiny(tmp_path, *QUICK, "run.name=astray", "trainer.val_every=8"))
    # The step after the update is the first that shows it.
    found = incidents(run)
    assert found[0] == (11, "skipped")
    assert (15, "rolled back") in found
    assert "weights and optimizer are those of step 8 again" in capfd.readouterr().out
    losses = {line["step"]: line["train/loss"] for line in lines(run) if "train/loss" in line}
    assert min(losses[step] for step in range(11, 16)) > max(losses[step] for step in range(16, 25))
    rates = {line["step"]: line["train/lr"] for line in lines(run) if "train/lr" in line}
    straight = train(compose_tiny(tmp_path, *QUICK, "run.name=straight"))
    planned = {line["step"]: line["train/lr"] for line in lines(straight) if "train/lr" in line}
    assert rates[16] == planned[16] / 2
    assert summary(run)["val/loss"] < 1.1 * summary(straight)["val/loss"]


def test_a_run_that_cannot_be_helped_stops(compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch) -> None:
    scale_losses(monkeypatch, range(6, 99), float("nan"))
    limits = ("callbacks.stability.return_steps=12", "callbacks.stability.max_interventions=6")
    with pytest.raises(
        ConfigError, match=r"5 skipped, 1 rate lowered by step 11 .*max_interventions=6.*Use a"
    ):
        train(compose_tiny(tmp_path, *QUICK, *limits, "run.name=lost"))
    assert summary(RunFolder(tmp_path / "train" / "lost"))["status"] == "failed"


def test_nothing_to_go_back_to_stops_the_run(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch
) -> None:
    scale_losses(monkeypatch, range(1, 99), float("nan"))
    with pytest.raises(
        ConfigError, match=r"did not return after step 2, and no checkpoint is older. Use a lower"
    ):
        train(compose_tiny(tmp_path, *QUICK, "run.name=early", "trainer.val_every=12"))


@pytest.mark.parametrize("stopped_at", [8, 12, 16])
def test_a_run_continued_amid_incidents_equals_one_that_never_stopped(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch, stopped_at: int
) -> None:
    scale_losses(monkeypatch, range(6, 7), 10.0)
    run_out_of_memory(monkeypatch, 7, most_rows=1)
    spoil_weights(monkeypatch, 9)
    whole = train(compose_tiny(tmp_path, *QUICK, "run.name=whole", "trainer.val_every=8"))
    assert {kind for _, kind in incidents(whole)} >= {"skipped", "out of memory", "rolled back"}
    with monkeypatch.context() as patch:
        stop_at(patch, stopped_at)
        with pytest.raises(Interrupted):
            train(compose_tiny(tmp_path, *QUICK, "run.name=stopped", "trainer.val_every=8"))
    stopped = train(compose_tiny(tmp_path, "resume=stopped"))
    assert {each.part: each.differences for each in compare_runs(stopped, whole) if each.differences} == {}


def test_out_of_memory_in_step_7_changes_no_loss(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch
) -> None:
    plain = ("lora.dropout=0", "trainer.max_steps=12")
    expected = train(compose_tiny(tmp_path, *QUICK, *plain, "run.name=expected"))
    run_out_of_memory(monkeypatch, 7, most_rows=1)
    run = train(compose_tiny(tmp_path, *QUICK, *plain, "run.name=tight"))
    assert incidents(run) == [(8, "out of memory")]
    losses = [
        [line["train/loss"] for line in lines(each) if "train/loss" in line] for each in (run, expected)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_row_that_does_not_fit_is_refused_with_advice(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch
) -> None:
    run_out_of_memory(monkeypatch, 2, most_rows=0)
    with pytest.raises(ConfigError) as refused:
        train(compose_tiny(tmp_path, *QUICK, "run.name=large"))
    message = str(refused.value)
    assert message.startswith("memory ran out on a single row of ")
    assert "Nothing short of a smaller model takes less" in message or "(saves about" in message


def test_training_stops_where_the_validation_loss_does_not_improve(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch, capfd: pytest.CaptureFixture[str]
) -> None:
    early = ("callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_improvement=9")
    run = train(compose_tiny(tmp_path, *QUICK, *early, "run.name=early"))
    assert "stopped early after step 12: validation loss not below" in capfd.readouterr().out
    found = summary(run)
    assert (found["status"], found["step"]) == ("completed", 12)
    assert "by more than 9 in 2 validations" in found["stopped_early"]
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        with pytest.raises(Interrupted):
            train(compose_tiny(tmp_path, *QUICK, *early, "run.name=cut"))
    assert summary(train(compose_tiny(tmp_path, "resume=cut")))["step"] == 12


def test_prompts_are_answered_at_each_validation_and_after_a_stop_once(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: Patch
) -> None:
    watched = (
        "eval.watch_prompts=2", "eval.watch_tokens=4", "trainer.max_steps=8", "run.name=watched",
        "logger=wandb", "logger.mode=offline",
    )  # fmt: skip
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        with pytest.raises(Interrupted):
            train(compose_tiny(tmp_path, *QUICK, *watched))
    run = train(compose_tiny(tmp_path, "resume=watched"))
    rows = [json.loads(line) for line in run.watch_path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0] * 2 + [4] * 2 + [8] * 2
    assert [row["prompt"] for row in rows[:2]] == [row["prompt"] for row in rows[4:]]
    assert all(row["reference"] and "answer" in row for row in rows)
    assert "Watched prompt 2" in run.path.joinpath("report.html").read_text()
    tables = run.path.glob("wandb/offline-run-*/files/media/table/watch_*.json")
    newest = json.loads(max(tables, key=lambda path: path.stat().st_mtime_ns).read_text())
    assert newest["data"] == [list(row.values()) for row in rows]
