"""What `auto` leaves open is decided before the first step, and what cannot work is refused before it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from loralab.config.load import read_yaml
from loralab.config.schema import TrainConfig
from loralab.data.cutting import MicroBatchSize
from loralab.errors import ConfigError, ModelError
from loralab.model import proposal
from loralab.modules.sft import SFTModule
from loralab.runs.folder import RunFolder
from loralab.training import memory_plan, session
from loralab.training.fit import train
from loralab.training.plan import plan_training, with_size
from loralab.training.setup import prepare

Compose = Callable[..., TrainConfig]


class Crash(Exception):
    """Stands for anything that ends a run without warning."""


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def adapter_of(run: RunFolder) -> dict[str, Any]:
    return load_file(run.adapter_dir / "adapter_model.safetensors")


def losses(run: RunFolder) -> list[float]:
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def widest_row(run: RunFolder) -> int:
    config = read_yaml(run.config_path, TrainConfig)
    longest = max(len(example.input_ids) for example in prepare(config).data.train.examples)
    return 16 * math.ceil(longest / 16)


def watch_micro_batches(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, int]]]:
    """Returns where the shapes of the micro-batches of every step will be noted."""
    seen, original = list[list[tuple[int, int]]](), SFTModule.training_step

    def training_step(self: SFTModule, batch: Any, batch_idx: int) -> Any:
        seen.append([tuple(part.input_ids.shape) for part in batch.micro_batches])
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SFTModule, "training_step", training_step)
    return seen


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = SFTModule.training_step

    def training_step(self: SFTModule, batch: Any, batch_idx: int) -> Any:
        if batch.step == step:
            raise Crash
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SFTModule, "training_step", training_step)


def test_auto_cuts_the_same_steps_into_what_fits(compose_tiny: Compose, tmp_path: Path) -> None:
    by_hand = train(compose_tiny(tmp_path, "run.name=hand", "trainer.batch_size=4", "eval=none"))
    options = ("trainer.batch_size=auto", "trainer.step_examples=4", "eval=none")
    auto = train(compose_tiny(tmp_path, "run.name=auto", *options))
    tokens = read(auto.manifest_path)["micro_batch_tokens"]
    # Steps of 4 examples fit at once: four of the widest, padded to 16, and not more.
    assert tokens == 4 * widest_row(auto)
    assert losses(auto) == pytest.approx(losses(by_hand), abs=1e-5)


def test_a_resumed_run_keeps_the_size_that_was_found(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        with pytest.raises(Crash):
            train(compose_tiny(tmp_path, "run.name=stopped", "trainer.batch_size=auto", "eval=none"))
    run = RunFolder(tmp_path / "train" / "stopped")
    manifest = read(run.manifest_path)
    found = 3 * widest_row(run)
    assert found < manifest["micro_batch_tokens"]
    run.manifest_path.write_text(json.dumps({**manifest, "micro_batch_tokens": found}))
    steps = watch_micro_batches(monkeypatch)
    train(compose_tiny(tmp_path, "resume=stopped"))
    assert read(run.manifest_path)["micro_batch_tokens"] == found
    assert read(run.summary_path)["status"] == "completed"
    assert len(steps) >= 6
    for shapes in steps:
        # 16 of 30 examples and then 14, cut from the widest on: each micro-batch takes all that the tokens
        # allow.
        assert sum(rows for rows, _ in shapes) in (16, 14)
        assert all(rows == found // width for rows, width in shapes[:-1])
        assert len(shapes) > 1
    # What is set beside the measured peak is the estimate of these micro-batches.
    config = read_yaml(run.config_path, TrainConfig)
    plan = plan_training(config, prepare(config))
    settled = with_size(plan, MicroBatchSize(tokens=found)).estimate.parts
    written = read(run.path / "memory.json")["estimate"]
    assert written["activations"] == settled["activations"] < plan.estimate.parts["activations"]


def test_a_size_that_a_trial_lowers_is_said_and_estimated_anew(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "try_size", lambda *_: MicroBatchSize(tokens=64))
    words = ("run.name=lowered", "trainer.batch_size=auto", "trainer.max_steps=2", "eval=none")
    run = train(compose_tiny(tmp_path, *words))
    text = " ".join(capsys.readouterr().out.split())
    assert "trainer.batch_size=auto: a trial took more. memory: " in text
    assert "in micro-batches of up to 64 tokens" in text
    config = read_yaml(run.config_path, TrainConfig)
    plan = plan_training(config, prepare(config))
    written = read(run.path / "memory.json")["estimate"]
    assert written["activations"] < plan.estimate.parts["activations"]


def test_a_run_that_does_not_fit_is_refused_with_what_would(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "rss_gib", lambda: 0.0999)
    with pytest.raises(ConfigError, match=r"not enough memory: training needs about .* may take 0\.1 GiB"):
        train(compose_tiny(tmp_path, "run.name=large", "trainer.memory_gib=0.1"))
    assert not (tmp_path / "train" / "large").exists()


def test_memory_that_the_libraries_fill_is_refused_for_what_it_is(
    compose_tiny: Compose, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refusal:
        train(compose_tiny(tmp_path, "run.name=large", "trainer.memory_gib=0.1"))
    message = str(refusal.value)
    assert message.startswith("not enough memory: libraries and data alone take ")
    assert "and trainer.memory_gib=0.1 allows less. The run needs about" in message
    assert "smaller model" not in message


def test_lora_auto_takes_no_rank_that_a_narrow_layer_refuses_and_says_what_it_replaces(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A million parameters would be wanted; k and v of the model are 32 wide.
    monkeypatch.setattr(proposal, "BITS_PER_TOKEN", 10**6)
    monkeypatch.setattr(proposal, "WIDTH_SHARE", 1)
    config = compose_tiny(tmp_path, "lora=auto", "lora.r=12", "lora.alpha=5", "lora.rslora=true")
    plan = plan_training(config, prepare(config))
    assert plan.config.lora.r == 32
    assert plan.config.lora.alpha == pytest.approx(2 * 32**0.5)
    assert "lora=auto: lora.r=12 and lora.alpha=5 replaced by what follows" in plan.notes


def test_lora_auto_says_why_and_keeps_what_it_chose(
    compose_tiny: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(compose_tiny(tmp_path, "run.name=proposed", "lora=auto", "trainer.max_steps=2", "eval=none"))
    text = " ".join(capsys.readouterr().out.split())
    assert "lora=auto: 30 rows hold" in text
    assert "alpha = 2 r = 16" in text
    assert read(run.adapter_dir / "adapter_config.json")["r"] == 8
    assert "auto: false" in run.config_path.read_text()


@pytest.mark.parametrize(
    "overrides",
    [
        ("lora=adalora", "lora.r=2"),
        ("lora=r8", "quant=none", "lora.init=pissa"),
        ("lora=prefix", "data.max_length=200"),
    ],
    ids=["adalora", "pissa", "prefix"],
)
def test_a_method_with_a_state_of_its_own_resumes_exactly(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    whole = train(compose_tiny(tmp_path, "run.name=whole", "eval=none", *overrides))
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(Crash):
            train(compose_tiny(tmp_path, "run.name=stopped", "eval=none", *overrides))
    train(compose_tiny(tmp_path, "resume=stopped"))
    stopped = RunFolder(tmp_path / "train" / "stopped")
    assert losses(stopped) == losses(whole)
    ours, expected = adapter_of(stopped), adapter_of(whole)
    assert ours.keys() == expected.keys()
    assert all(ours[name].equal(expected[name]) for name in ours)


def test_added_tokens_train_and_come_back(compose_tiny: Compose, tmp_path: Path) -> None:
    run = train(
        compose_tiny(tmp_path, "run.name=tokens", "model.added_tokens=['<call>']", "trainer.max_steps=4")
    )
    assert "<call>" in AutoTokenizer.from_pretrained(run.adapter_dir).get_vocab()
    assert any("token_adapter" in name or "trainable_tokens" in name for name in adapter_of(run))
    assert math.isfinite(read(run.summary_path)["test/perplexity"])


def test_a_checkpoint_of_another_base_is_refused(
    compose_tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        with pytest.raises(Crash):
            train(compose_tiny(tmp_path, "run.name=stopped", "eval=none"))
    config = LlamaConfig.from_pretrained(tiny_model_dir)
    config.hidden_size, config.intermediate_size = 2 * config.hidden_size, 2 * config.intermediate_size
    other = tmp_path / "other"
    LlamaForCausalLM(config).save_pretrained(other)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(other)
    run = RunFolder(tmp_path / "train" / "stopped")
    text = run.config_path.read_text()
    run.config_path.write_text(text.replace(str(tiny_model_dir), str(other)))
    with pytest.raises(ModelError, match="the checkpoint was trained on"):
        train(compose_tiny(tmp_path, "resume=stopped"))


def test_the_end_of_a_run_sets_the_estimate_beside_what_was_measured(
    compose_tiny: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(compose_tiny(tmp_path, "run.name=measured", "trainer.max_steps=4"))
    memory = read(run.path / "memory.json")
    stages = [stage["stage"] for stage in memory["stages"]]
    assert stages == ["baseline", "loaded", "adapted", "first_step", "steady", "evaluation", "comparison"]
    assert memory["measured_peak_gib"] > 0
    assert sum(memory["estimate"].values()) > 0
    text = capsys.readouterr().out
    assert "memory: a step of the longest rows was estimated at" in text
    assert "; the steps taken reached" in text
    updates = read(run.path / "adapter.json")["layers"]
    assert all(1 <= update["effective_rank"] <= 8 and update["gradient_rms"] > 0 for update in updates)
    assert "How the base is stored" in (run.path / "report.html").read_text()
