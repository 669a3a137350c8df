"""A run of TRL's SFTTrainer, in a process of its own: prints one line of JSON.

python benchmarks/rival.py '{"model": "...", "data": "...", "adapter": "...", "quant": "none", ...}'
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer


class StepClock(TrainerCallback):
    """Notes when each optimizer step begins and ends."""

    def __init__(self) -> None:
        """Starts empty."""
        self.begun: list[float] = []
        self.ended: list[float] = []

    def on_step_begin(self, *arguments: Any, **named: Any) -> None:
        """Notes the time."""
        self.begun.append(time.time())

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        """Notes the time, once the device is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ended.append(time.time())


def main() -> None:
    """Trains as the case on the command line says."""
    case = json.loads(sys.argv[1])
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(case, clock, folder)
        trainer.train()
    trainer.save_model(case["adapter"])
    counted = [each["num_tokens"] for each in trainer.state.log_history if "loss" in each]
    print(json.dumps({
        "tokens": counted[-1] - counted[0],
        "seconds": sum(clock.ended[1:]) - sum(clock.begun[1:]),
        "first_step_s": clock.ended[0] - case["started"],
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }))  # fmt: skip


def build(case: dict[str, Any], clock: StepClock, folder: str) -> SFTTrainer:
    """Sets TRL up as its documentation does for LoRA."""
    disable_progress_bars()
    rows = [json.loads(line) for line in Path(case["data"]).read_text().splitlines()]
    dataset = Dataset.from_list([
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }
        for row in rows
    ])  # fmt: skip
    options: dict[str, Any] = {"dtype": torch.bfloat16}
    if case["quant"] == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
    settings = SFTConfig(
        output_dir=folder, per_device_train_batch_size=case["rows"], max_steps=case["steps"],
        learning_rate=case["lr"], logging_steps=1, packing=case["packing"], max_length=case["max_length"],
        report_to=[], save_strategy="no", use_cpu=not torch.cuda.is_available(), bf16=True,
        gradient_checkpointing=False, disable_tqdm=True, lr_scheduler_type="constant",
    )  # fmt: skip
    adapter = LoraConfig(r=case["rank"], lora_alpha=2 * case["rank"], target_modules="all-linear",
                         task_type="CAUSAL_LM")  # fmt: skip
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(case["model"], **options), args=settings,
        train_dataset=dataset, processing_class=AutoTokenizer.from_pretrained(case["model"]),
        peft_config=adapter, callbacks=[clock],
    )  # fmt: skip


if __name__ == "__main__":
    main()
