"""What a command writes into its run folder besides metrics and weights."""

import datetime
from dataclasses import asdict
from typing import Any

import yaml
from rich.console import Console

from loralab.config.load import job_number, task_overrides, to_yaml
from loralab.config.method_rules import FIELDS, VIRTUAL_TOKENS
from loralab.config.model import QuantConfig
from loralab.config.schema import EvaluateConfig, TrainConfig
from loralab.errors import ConfigError
from loralab.evaluation.compare import Comparison
from loralab.evaluation.report import write_report
from loralab.model.prequantized import Prequantized, prequantized
from loralab.runs.folder import (
    RunFolder,
    create_run,
    new_run_id,
    read_json,
    write_json,
    write_jsonl,
    write_text,
)
from loralab.runs.manifest import base_manifest
from loralab.training.setup import Setup


def new_run(config: TrainConfig, setup: Setup, command: str = "train") -> RunFolder:
    """Makes the folder of a run.

    Args:
        config: The run's config.
        setup: Its tokenizer and data.
        command: `train` or `dry_run`: the folder below `run.outputs_dir`.

    Raises:
        ConfigError: The folder exists already or cannot be made.
    """
    job = job_number()
    stored = prequantized(setup.model.config)
    label = f"{config.model.name}_{adapter_label(config, stored)}"
    run_id = config.run.name or new_run_id(label, datetime.datetime.now(), job)
    if config.run.name is not None and job is not None:
        run_id = f"{run_id}_{job}"
    return create_run(config.run.outputs_dir, command, run_id)


def begin_training(run: RunFolder, config: TrainConfig, setup: Setup) -> None:
    """Writes everything that is known before the first step into the folder of a new run.

    Raises:
        ConfigError: Another process has begun the run since the folder was made.
    """
    if run.config_path.exists():
        raise ConfigError(f"{run.path} was begun by another process just now. Choose another name.")
    command = "dry_run" if config.dry_run else "train"
    facts = {"command": command, "seed": config.seed}
    _describe(run, config, setup, datetime.datetime.now(), facts)
    if not config.dry_run:
        update_summary(run, {"run_id": run.run_id, "status": "running", "step": 0})


def adapter_label(config: TrainConfig, stored: Prequantized | None) -> str:
    """Names an adapter and the storage of its base in a run id: `r8`, `dora_r8`, `prefix20`, `r8_int8`.

    Args:
        config: The run's config.
        stored: How the base comes quantized, which `quant` does not change; None for ordinary weights.
    """
    lora, words = config.lora, []
    if lora.method != "lora":
        words.append(lora.method)
    elif lora.init != "default":
        words.append(lora.init)
    words += [option for option in ("rslora", "dora") if getattr(lora, option)]
    if lora.method in VIRTUAL_TOKENS:
        words[-1] += str(lora.virtual_tokens)
    elif "r" in FIELDS[lora.method]:
        words.append(f"r{lora.r}")
    scheme = config.quant.name if stored is None else stored.scheme
    if scheme != QuantConfig.name:
        words.append("noquant" if scheme == "none" else scheme)
    return "_".join(words)


def begin_evaluation(config: EvaluateConfig, trained: RunFolder, setup: Setup) -> RunFolder:
    """Makes the folder of an evaluation and writes what it was made of."""
    now = datetime.datetime.now()
    run_id = config.name or new_run_id(trained.run_id, now, job_number())
    run = create_run(config.outputs_dir, "evaluate", run_id)
    _describe(run, config, setup, now, {"command": "evaluate", "parent_run": trained.run_id})
    return run


def update_summary(run: RunFolder, values: dict[str, Any]) -> None:
    """Adds to `summary.json` what is known by now."""
    write_json(run.summary_path, {**read_json(run.summary_path), **values})


def record_comparison(run: RunFolder, comparison: Comparison, num_samples: int) -> None:
    """Writes the figures, every prediction and a few samples of a comparison."""
    update_summary(run, comparison.figures)
    write_jsonl(run.predictions_path, comparison.predictions)
    write_jsonl(run.samples_path, comparison.predictions[:num_samples])


def close_run(run: RunFolder, status: str, console: Console) -> None:
    """Writes the report and says where everything is; a report that fails hides nothing else."""
    try:
        console.print(f"report:     {write_report(run.path)}", soft_wrap=True)
    except Exception as error:  # whatever it is must not replace the error that ended the run
        console.print(f"no report: {type(error).__name__}: {error}", soft_wrap=True)
    console.print(f"run folder: {run.path} ({status})", soft_wrap=True)


def _describe(
    run: RunFolder,
    config: TrainConfig | EvaluateConfig,
    setup: Setup,
    now: datetime.datetime,
    facts: dict[str, Any],
) -> None:
    write_text(run.overrides_path, yaml.safe_dump(task_overrides()))
    manifest = base_manifest(run.run_id, now)
    manifest |= {"parent_run": None, **facts}
    manifest["data"] = [asdict(file) for file in setup.data.files]
    manifest["chat_template"] = str(setup.tokenizer.chat_template)
    write_json(run.manifest_path, manifest)
    write_json(run.data_path, setup.data.report.to_account())
    # Last: with it the folder is a run that can be continued.
    write_text(run.config_path, to_yaml(config))
