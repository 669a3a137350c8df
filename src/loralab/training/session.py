"""The parts of a training run, put together."""

import warnings
from dataclasses import dataclass

import lightning.pytorch as pl
from lightning.fabric.utilities.warnings import PossibleUserWarning
from peft import PeftModel
from rich.console import Console

from loralab.callbacks.checkpoints import Checkpoints
from loralab.callbacks.interrupts import Interrupts
from loralab.callbacks.memory import MemoryMonitor
from loralab.callbacks.progress import ProgressLine
from loralab.callbacks.recorder import Recorder
from loralab.callbacks.restore import Restore
from loralab.data.cutting import MicroBatchSize
from loralab.data.datamodule import DataModule
from loralab.model.adapters.origin import base_facts, check_same_base
from loralab.model.attention import enable_document_attention
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter
from loralab.model.quant_report import storage_table
from loralab.modules.base import AdapterModule
from loralab.modules.registry import MODULES
from loralab.runs.folder import RunFolder, read_json, write_json
from loralab.runs.memory import MemoryMeter
from loralab.training.batch_size import try_size
from loralab.training.loggers import build_loggers, trim_metrics
from loralab.training.memory_plan import AUTO
from loralab.training.plan import TrainingPlan, adapter_context, with_size
from loralab.training.resume import last_checkpoint
from loralab.training.setup import Setup

BASE = "base"
"""Where the manifest keeps what tells the base from another one."""
MICRO_BATCH_TOKENS = "micro_batch_tokens"
"""Where the manifest keeps what `trainer.batch_size=auto` found: a resumed run cuts its steps alike."""


@dataclass(frozen=True)
class Session:
    """The parts of one run that its stages share."""

    run: RunFolder
    plan: TrainingPlan
    setup: Setup
    module: AdapterModule
    datamodule: DataModule
    trainer: pl.Trainer
    recorder: Recorder
    checkpoints: Checkpoints
    meter: MemoryMeter
    console: Console


def assemble(run: RunFolder, plan: TrainingPlan, setup: Setup, console: Console) -> Session:
    """Loads the model, attaches the adapter and builds everything that trains it.

    Raises:
        LoralabError: The model cannot be loaded, a target does not exist, it does not fit in memory, or a
            checkpoint is damaged.
    """
    config, data = plan.config, setup.data
    meter = MemoryMeter(setup.device)
    meter.mark("baseline")
    model = load_adapted(run, plan, setup, meter)
    module = MODULES[config.objective.name](
        model, plan.steps, config, setup.dtype, data.source_names, max(1, len(data.shares))
    )
    meter.mark("adapted")
    estimated = plan.size
    plan = with_size(plan, settle_size(run, plan, module, meter))
    if plan.size != estimated:
        console.print(f"trainer.batch_size=auto: a trial took more. {plan.notes[-1]}", soft_wrap=True)
    elif config.trainer.batch_size == AUTO and not meter.can_reset:
        console.print(
            "trainer.batch_size=auto: no peak can be started anew here, so the estimate stands untried",
            soft_wrap=True,
        )
    datamodule = DataModule(data, plan.steps, plan.layout, plan.size, setup.tokenizer.pad_token_id)
    recorder = Recorder(config.callbacks.log_every, meter)
    checkpoints = Checkpoints(run, config.callbacks.checkpoint_every, recorder)
    restore = Restore(last_checkpoint(run, console), module, recorder, checkpoints)
    progress = [ProgressLine(console, recorder)] if config.callbacks.progress else []
    trim_metrics(run.metrics_path, module.finished_steps)
    # Advice on worker processes; a step's batch is built in well under a millisecond.
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    trainer = pl.Trainer(
        accelerator=setup.device.type,
        devices=1,
        max_epochs=plan.steps.num_validations(module.finished_steps),
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=build_loggers(config, run),
        callbacks=[
            restore, recorder, MemoryMonitor(meter), *progress, checkpoints, Interrupts(checkpoints, recorder)
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    return Session(run, plan, setup, module, datamodule, trainer, recorder, checkpoints, meter, console)


def load_adapted(run: RunFolder, plan: TrainingPlan, setup: Setup, meter: MemoryMeter) -> PeftModel:
    """Loads the frozen base, writes down how it is stored, and puts a new adapter on it."""
    config = plan.config
    base = load_base(config.model, config.quant, setup.device, setup.dtype)
    meter.mark("loaded")
    manifest = read_json(run.manifest_path)
    if BASE in manifest:
        check_same_base(manifest[BASE], base)
    else:
        write_json(run.manifest_path, {**manifest, BASE: base_facts(base)})
        write_json(run.path / "quantization.json", {"layers": storage_table(base)})
    if config.trainer.gradient_checkpointing:
        base.activation_checkpointing_enable()
    if plan.layout.is_packed:
        enable_document_attention(base)
    return attach_adapter(base, config.lora, config.seed, adapter_context(config, setup, plan.steps))


def settle_size(
    run: RunFolder, plan: TrainingPlan, module: AdapterModule, meter: MemoryMeter
) -> MicroBatchSize:
    """Returns how steps are cut: as configured, as a resumed run found it, or as a real step shows to fit."""
    if plan.config.trainer.batch_size != AUTO:
        return plan.size
    if (stored := stored_size(run)) is not None:
        return stored
    size = try_size(plan.size, module, plan.memory, plan.layout, meter)
    write_json(run.manifest_path, {**read_json(run.manifest_path), MICRO_BATCH_TOKENS: size.tokens})
    return size


def stored_size(run: RunFolder) -> MicroBatchSize | None:
    """Returns what `trainer.batch_size=auto` found for a run; None where it has not yet."""
    tokens = read_json(run.manifest_path).get(MICRO_BATCH_TOKENS)
    return None if tokens is None else MicroBatchSize(tokens=tokens)
