"""Evaluating a finished run again, from its folder alone."""

import dataclasses
import time

from rich.console import Console

from loralab import metrics
from loralab.config.load import read_yaml
from loralab.config.schema import EvaluateConfig, TrainConfig
from loralab.errors import ConfigError
from loralab.evaluation.compare import compare
from loralab.evaluation.tables import print_comparison
from loralab.model.faster import run_faster
from loralab.model.load import load_base
from loralab.model.lora import load_adapter
from loralab.runs.folder import RunFolder, find_run, resume_command
from loralab.runs.memory import MemoryMeter
from loralab.training.record import begin_evaluation, close_run, record_comparison, update_summary
from loralab.training.resume import check_same_data
from loralab.training.setup import prepare


def evaluate_run(config: EvaluateConfig) -> RunFolder:
    """Repeats a run's comparison of base and tuned model and returns the evaluation's folder.

    Raises:
        LoralabError: Something the user must change.
    """
    started, console = time.perf_counter(), Console(highlight=False)
    trained = find_run(config.outputs_dir, config.run, "run")
    if not (trained.adapter_dir / "adapter_config.json").is_file():
        raise ConfigError(f"run={config.run} has no adapter yet. Finish it with: {resume_command(trained)}")
    settings = merge(read_yaml(trained.config_path, TrainConfig), config)
    setup = prepare(settings)
    check_same_data(trained, setup.data.files)
    run = begin_evaluation(config, trained, setup)
    console.print(f"run folder: {run.path}", soft_wrap=True)
    meter = MemoryMeter(setup.device)
    base = load_base(settings.model, settings.quant, setup.device, setup.dtype)
    model = load_adapter(base, trained.adapter_dir, setup.dtype)
    run_faster(model, settings.trainer.speed)
    comparison = compare(model, setup.tokenizer, setup.data, settings.eval, console)
    record_comparison(run, comparison, settings.eval.samples)
    update_summary(run, {
        "run_id": run.run_id,
        "status": "completed",
        metrics.MEMORY_PEAK_GIB: round(meter.peak_gib, 3),
        "wall_s": round(time.perf_counter() - started, 1),
    })  # fmt: skip
    num_samples = settings.eval.samples
    print_comparison(console, comparison.figures, comparison.predictions, num_samples, run.samples_path)
    close_run(run, "completed", console)
    return run


def merge(trained: TrainConfig, config: EvaluateConfig) -> TrainConfig:
    """Takes a training run's config with what the evaluation asks to change."""
    changed = {
        key: value
        for key in ("max_examples", "max_new_tokens", "batch_size")
        if (value := getattr(config, key)) is not None
    }
    trainer = trained.trainer
    if config.accelerator is not None:
        trainer = dataclasses.replace(trainer, accelerator=config.accelerator)
    return dataclasses.replace(trained, eval=dataclasses.replace(trained.eval, **changed), trainer=trainer)
