"""The whole job on a tiny random model: what a run leaves behind, and what can be done with it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from loralab.config.schema import EvaluateConfig, TrainConfig
from loralab.errors import DataError
from loralab.runs.folder import RunFolder
from loralab.training.fit import train
from loralab.training.reevaluate import evaluate_run

FILES = {
    "config.yaml",
    "overrides.yaml",
    "manifest.json",
    "metrics.jsonl",
    "watch.jsonl",
    "summary.json",
    "data.json",
    "samples.jsonl",
    "predictions.jsonl",
    "report.html",
    "checkpoints",
    "adapter",
    "adapter.json",
    "memory.json",
    "quantization.json",
}
SUMMARY_KEYS = {
    "stopped_early",
    "run_id",
    "status",
    "step",
    "train/loss",
    "val/loss",
    "val/perplexity",
    "base/val_perplexity",
    "train/tokens_per_s",
    "train/supervised_tokens",
    "test/perplexity",
    "base/test_perplexity",
    "test/exact_match",
    "base/test_exact_match",
    "memory/peak_gib",
    "model/trainable_params",
    "model/total_params",
    "wall_s",
}


@pytest.fixture(scope="module")
def outputs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def run(compose_tiny: Callable[..., TrainConfig], outputs_dir: Path) -> RunFolder:
    return train(compose_tiny(outputs_dir, "run.name=tiny"))


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_run_folder_is_complete(run: RunFolder) -> None:
    assert {item.name for item in run.path.iterdir()} == {*FILES, ".lock"}
    assert {item.name for item in run.checkpoints_dir.iterdir()} == {"last", "best", "step-12", "step-8"}
    for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (run.adapter_dir / name).is_file()


def test_the_summary_is_one_flat_object_with_every_key(run: RunFolder) -> None:
    summary = read(run.summary_path)
    assert summary.keys() == SUMMARY_KEYS
    assert summary["status"] == "completed"
    assert summary["step"] == 12
    assert not any(isinstance(value, dict | list) for value in summary.values())


def test_every_step_has_a_line_and_every_validation(run: RunFolder) -> None:
    lines = read_lines(run.metrics_path)
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "val/loss" in line] == [0, 4, 8, 12]
    for line in lines:
        if "val/loss" in line:
            assert line["val/perplexity"] == pytest.approx(math.exp(line["val/loss"]))


def test_training_lowers_the_loss_and_the_base_is_measured_first(run: RunFolder) -> None:
    summary, lines = read(run.summary_path), read_lines(run.metrics_path)
    assert lines[0]["val/perplexity"] == summary["base/val_perplexity"]
    assert summary["val/perplexity"] < 0.8 * summary["base/val_perplexity"]
    assert summary["test/perplexity"] < 0.8 * summary["base/test_perplexity"]


def test_supervised_tokens_are_counted_over_the_run(run: RunFolder) -> None:
    lines = read_lines(run.metrics_path)
    counted = sum(line["train/supervised_tokens"] for line in lines if "train/loss" in line)
    assert read(run.summary_path)["train/supervised_tokens"] == counted > 0


def test_the_manifest_pins_data_versions_and_template(run: RunFolder, rows_file: Path) -> None:
    manifest = read(run.manifest_path)
    assert manifest["data"][0]["path"] == str(rows_file)
    assert len(manifest["data"][0]["sha256"]) == 64
    # Builds for CUDA say so in the module alone.
    assert torch.__version__.startswith(manifest["versions"]["torch"])
    assert "<|im_start|>" in manifest["chat_template"]
    assert manifest["seed"] == 0


def test_splits_account_for_every_row(run: RunFolder) -> None:
    splits = read(run.data_path)["splits"]
    assert {name: split["rows"] for name, split in splits.items()} == {"train": 30, "val": 2, "test": 8}
    (source,) = read(run.data_path)["sources"]
    assert source["tally"] == {"rows": 40, "removed": {}}


def plain_peft_perplexity(run: RunFolder, base: torch.nn.Module) -> float:
    """Perplexity of the predictions file's references, by transformers' own loss, one example at a time."""
    model = peft.PeftModel.from_pretrained(base, str(run.adapter_dir)).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.adapter_dir)
    total, count = 0.0, 0
    for row in read_lines(run.predictions_path):
        turns = [{"role": "user", "content": row["prompt"]}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
        answer_ids = tokenizer(row["reference"] + "<|im_end|>", add_special_tokens=False).input_ids
        ids = torch.tensor([prompt_ids + answer_ids])
        labels = ids.clone()
        labels[0, : len(prompt_ids)] = -100
        with torch.no_grad():
            total += model(input_ids=ids, labels=labels).loss.item() * len(answer_ids)
        count += len(answer_ids)
    return math.exp(total / count)


def test_plain_peft_reproduces_the_reported_perplexity_without_quantization(
    compose_tiny: Callable[..., TrainConfig], tiny_model_dir: Path, tmp_path: Path
) -> None:
    run = train(compose_tiny(tmp_path, "quant=none", "run.name=plain"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    assert plain_peft_perplexity(run, base) == pytest.approx(
        read(run.summary_path)["test/perplexity"], rel=1e-4
    )


def test_evaluate_gives_the_same_numbers(run: RunFolder, outputs_dir: Path) -> None:
    again = evaluate_run(EvaluateConfig(run="tiny", outputs_dir=str(outputs_dir), name="again"))
    trained, evaluated = read(run.summary_path), read(again.summary_path)
    for name in ("test/perplexity", "base/test_perplexity", "test/exact_match", "base/test_exact_match"):
        assert evaluated[name] == trained[name]
    assert read_lines(again.predictions_path) == read_lines(run.predictions_path)
    assert read(again.manifest_path)["parent_run"] == "tiny"
    assert again.path == outputs_dir / "evaluate" / "again"


def test_evaluate_refuses_rows_that_changed(
    compose_tiny: Callable[..., TrainConfig], rows_file: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows_file.read_text())
    train(compose_tiny(tmp_path, f"data.path={rows}", "trainer.max_steps=1", "eval=none", "run.name=was"))
    rows.write_text(rows_file.read_text() + '{"prompt": "one", "completion": "more"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl changed since was began"):
        evaluate_run(EvaluateConfig(run="was", outputs_dir=str(tmp_path)))


def test_text_rows_train_and_are_compared_by_perplexity_alone(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"text": f"Count to five: one two three {i}."}) + "\n" for i in range(20))
    )
    run = train(compose_tiny(tmp_path, f"data.path={texts}", "trainer.max_steps=8", "run.name=text"))
    summary = read(run.summary_path)
    assert summary["test/exact_match"] is None
    assert summary["test/perplexity"] < 0.8 * summary["base/test_perplexity"]


def test_wandb_offline_needs_no_account_and_keeps_its_files_in_the_run(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    run = train(
        compose_tiny(tmp_path, "logger=wandb", "logger.mode=offline", "trainer.max_steps=4", "run.name=wb")
    )
    assert list(run.path.glob("wandb/offline-run-*/run-wb.wandb"))
