"""Whole runs with other optimizers and precisions: stopped and continued, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.integration.test_resume import Crash, crash, stop_at

from loralab.callbacks.checkpoints import Checkpoints
from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError
from loralab.runs.checkpoint import load_checkpoint
from loralab.runs.compare import logged_lines
from loralab.runs.folder import RunFolder
from loralab.runs.series import step_dir
from loralab.training.fit import train

Compose = Callable[..., TrainConfig]
CHOICES = {
    "averaged": ["optim=schedule_free_adamw", "lora.dropout=0.2"],
    "fp16": [
        "optim=muon", "schedule=wsd", "trainer.precision=fp16", "trainer.neftune_alpha=5",
        "trainer.gradient_checkpointing=2", "optim.lora_plus_ratio=4", "optim.lr_pattern={mlp:0.5}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES)
def test_a_continued_run_equals_one_that_never_stopped(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    # Saved after each step: step 6 lies between two validations.
    words = [*CHOICES[choice], "callbacks.checkpoint_every=1", "eval=none"]
    whole = train(compose_tiny(tmp_path, *words, "run.name=whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 6, crash)
        with pytest.raises(Crash):
            train(compose_tiny(tmp_path, *words, "run.name=stopped"))
    train(compose_tiny(tmp_path, "resume=stopped"))

    stopped = RunFolder(tmp_path / "train" / "stopped")
    assert logged_lines(stopped.metrics_path) == logged_lines(whole.metrics_path)
    ours, expected = (load_file(run.adapter_dir / "adapter_model.safetensors") for run in (stopped, whole))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    losses = [line["val/loss"] for line in logged_lines(whole.metrics_path) if "val/loss" in line]
    assert losses[-1] < losses[0]


def test_what_is_validated_is_the_average_and_is_what_is_saved(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, validated = Checkpoints.save, []

    def save(self: Checkpoints, trainer: Any, module: Any, generators: Any = None) -> None:
        original(self, trainer, module, generators)
        if self.val_step == module.finished_steps:
            weights = load_checkpoint(step_dir(self.run.checkpoints_dir, self.val_step)).weights
            parameters = module.masters.model_parameters
            validated.append(all(torch.equal(parameters[key], value) for key, value in weights.items()))

    monkeypatch.setattr(Checkpoints, "save", save)
    run = train(compose_tiny(tmp_path, "optim=schedule_free_adamw", "run.name=sf", "eval=none"))
    assert validated and all(validated)
    best = load_checkpoint(run.checkpoints_dir / "best")
    points = best.state["optimizer"]["points"]
    assert not any(
        torch.equal(value, point) for value, point in zip(best.weights.values(), points, strict=True)
    )
    saved = load_file(run.adapter_dir / "adapter_model.safetensors")
    assert all(torch.equal(saved[key.replace(".default", "")], value) for key, value in best.weights.items())


def test_a_step_that_overflows_fp16_is_left_out_and_counted(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From 2^22 gradients overflow until the scale has come down.
    monkeypatch.setattr("loralab.optim.scaling.FIRST_SCALE", 2.0**22)
    run = train(compose_tiny(tmp_path, "trainer.precision=fp16", "run.name=fp16", "eval=none"))
    lines = [line for line in logged_lines(run.metrics_path) if "train/loss_scale" in line]
    skipped = [line["train/skipped_steps"] for line in lines]
    assert skipped[0] == 1 and skipped == sorted(skipped) and skipped[-1] < len(lines)
    assert [line["train/loss_scale"] for line in lines] == [2.0 ** (22 - count) for count in skipped]
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    progress = json.loads((run.checkpoints_dir / "last" / "progress.json").read_text())
    assert progress["step"] == len(lines)  # a step left out is a step of the data all the same


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim=paged_adamw", r"optim=paged_adamw moves its state .* no GPU. Use optim=adamw."),
        ("optim.lr_pattern={q_prj:2}", r"optim.lr_pattern: 'q_prj' matches no module .* Closest: q_proj"),
    ],
)
def test_what_cannot_be_is_refused_before_weights_load(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str
) -> None:
    def load(*args: object) -> None:
        raise AssertionError("weights load")

    monkeypatch.setattr("loralab.training.session.load_base", load)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        train(compose_tiny(tmp_path, word))
    assert not (tmp_path / "train").exists()
