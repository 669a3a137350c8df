"""Faster ways reach the runs that ask for them, and the loss curves stay those of the plain one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loralab.config.schema import TrainConfig
from loralab.modules import base
from loralab.runs.compare import logged_lines
from loralab.training import session
from loralab.training.fit import train

Compose = Callable[..., TrainConfig]
SWITCHES = (
    "padding_free", "shared_prefix", "block_attention", "fused_head", "fused_lora", "recompute_elementwise",
    "parallel_rows",
)  # fmt: skip
PLAIN = [f"trainer.speed.{key}=false" for key in SWITCHES]
SEEDS = 3


def curves(compose: Compose, outputs_dir: Path, *words: str) -> np.ndarray[Any, Any]:
    """Returns the losses of training and validation of each seed: [seeds, steps]."""
    found = []
    for seed in range(SEEDS):
        run = train(compose(outputs_dir, f"seed={seed}", f"run.name=seed{seed}", "eval=none", *words))
        lines = logged_lines(run.metrics_path)
        found.append([line[key] for line in lines for key in ("train/loss", "val/loss") if key in line])
    return np.array(found)


def test_all_that_is_faster_moves_no_curve(compose_tiny: Compose, tmp_path: Path) -> None:
    plain = curves(compose_tiny, tmp_path / "plain", *PLAIN)
    fast = curves(compose_tiny, tmp_path / "fast")
    # Float32 sums in another order; what a seed changes is thousands of times that.
    np.testing.assert_allclose(fast, plain, rtol=1e-4)
    assert np.ptp(plain, axis=0).mean() > 1e-2


@pytest.mark.parametrize(("words", "expected"), [([], True), (PLAIN, False)])
def test_padding_is_left_out_where_it_is_asked_for(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: bool
) -> None:
    widths: list[tuple[int, int]] = []
    original = base.without_padding

    def spy(batch: Any) -> Any:
        laid = original(batch)
        widths.append((len(batch.input_ids), len(laid.input_ids)))
        return laid

    monkeypatch.setattr(base, "without_padding", spy)
    train(compose_tiny(tmp_path, "trainer.max_steps=1", "eval=none", *words))
    assert any(before > 1 and after == 1 for before, after in widths) is expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_run_compiles_where_it_is_asked_to(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = []
    original = session.compile_elementwise
    monkeypatch.setattr(session, "compile_elementwise", lambda model: changed.append(original(model)))
    words = ["trainer.max_steps=2", "eval=none", "eval.watch_prompts=0"]
    plain = train(compose_tiny(tmp_path / "plain", *words))
    assert changed == []
    compiled = train(compose_tiny(tmp_path / "compiled", *words, "trainer.speed.compile=true"))
    assert changed and changed[0] > 0
    losses = [[line["train/loss"] for line in logged_lines(run.metrics_path) if "train/loss" in line]
              for run in (plain, compiled)]  # fmt: skip
    np.testing.assert_allclose(*losses, rtol=1e-4)
