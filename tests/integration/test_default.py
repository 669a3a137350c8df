"""The real thing: `python train.py` on the embedded model and task, a quarter as long as by default."""

import json
import math
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from loralab.model.embedded import embedded_model_dir
from loralab.model.hardware import resolve_dtype


def plain_perplexity(adapter_dir: Path, predictions: Path) -> float:
    """The reported perplexity again with transformers and PEFT alone, one example at a time."""
    dtype = resolve_dtype("auto", torch.device("cpu"))
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    base = AutoModelForCausalLM.from_pretrained(
        embedded_model_dir(), dtype=dtype, quantization_config=quantization, device_map={"": "cpu"}
    )
    assert any(isinstance(module, Linear4bit) for module in base.modules())
    model = peft.PeftModel.from_pretrained(base, str(adapter_dir)).eval()
    tokenizer = AutoTokenizer.from_pretrained(adapter_dir)
    total, count = 0.0, 0
    for line in predictions.read_text().splitlines():
        row = json.loads(line)
        prompt = (
            f"<|im_start|>system\nReply with one JSON call.<|im_end|>\n<|im_start|>user\n{row['prompt']}"
            "<|im_end|>\n<|im_start|>assistant\n"
        )
        prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
        answer_ids = tokenizer(f"{row['reference']}<|im_end|>", add_special_tokens=False).input_ids
        ids = torch.tensor([prompt_ids + answer_ids])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1].float()
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(answer_ids), reduction="sum").item()
        count += len(answer_ids)
    return math.exp(total / count)


def test_the_default_run_beats_the_base_and_opens_with_plain_peft(repository: Path, tmp_path: Path) -> None:
    # Half an epoch and 80 rows: on two slow cores the whole takes longer than all other tests together.
    shorter = ["trainer.epochs=0.5", "eval.max_examples=80"]
    command = [sys.executable, "train.py", *shorter, f"run.outputs_dir={tmp_path}", "run.name=default"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "train" / "default"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["base/test_exact_match"] <= 0.05
    assert summary["test/exact_match"] >= 0.7
    assert "incident/kind" not in (run / "metrics.jsonl").read_text()
    assert summary["model/trainable_params"] / summary["model/total_params"] < 0.02
    assert len((run / "predictions.jsonl").read_text().splitlines()) == 80
    # PEFT computes adapters in float32 by default, the run in bfloat16: equal to within its rounding.
    reported = summary["test/perplexity"]
    assert plain_perplexity(run / "adapter", run / "predictions.jsonl") == pytest.approx(reported, rel=0.01)
