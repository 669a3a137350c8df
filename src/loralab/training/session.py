"""The parts of a training run, put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel

from loralab import metrics
from loralab.callbacks.checkpoints import Checkpoints
from loralab.callbacks.early_stopping import EarlyStopping
from loralab.callbacks.interrupts import Interrupts
from loralab.callbacks.memory import MemoryMonitor
from loralab.callbacks.profiler import Profiler
from loralab.callbacks.progress import ProgressLine
from loralab.callbacks.recorder import Recorder
from loralab.callbacks.restore import Restore
from loralab.callbacks.stability import Stability
from loralab.callbacks.watch import Watch
from loralab.config.method_rules import is_padding_free
from loralab.data.cutting import MicroBatchSize
from loralab.data.datamodule import DataModule
from loralab.distributed.group import gathered, is_first, on_first, rank, world_size
from loralab.evaluation.compare import watched_answers
from loralab.model.adapters.origin import base_facts, check_same_base
from loralab.model.attention import allow_padding_free, enable_document_attention
from loralab.model.checkpointing import recompute_layers
from loralab.model.compiled import compile_elementwise
from loralab.model.faster import run_faster
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, causal_lm
from loralab.model.offloading import CudaLink
from loralab.model.quant_report import storage_table
from loralab.model.sharding import shard_base
from loralab.modules.base import AdapterModule
from loralab.modules.registry import MODULES
from loralab.runs.checkpoint import Checkpoint
from loralab.runs.folder import RunFolder, read_json, write_json
from loralab.runs.generators import seed_generators
from loralab.runs.memory import MemoryMeter
from loralab.runs.metrics_file import cut_metrics, keep_until
from loralab.runs.series import clear_leftovers, load_newest
from loralab.training.batch_size import try_size
from loralab.training.memory_plan import AUTO
from loralab.training.plan import TrainingPlan, adapter_context, with_size
from loralab.training.resume import Resumed, record_changes
from loralab.training.setup import Setup
from loralab.training.trainer import build_trainer, is_sharded

LARGEST_SEED = 2**32
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
    early_stopping: EarlyStopping
    watch: list[Watch]
    """What answers prompts at each validation, if anything does."""


def assemble(
    run: RunFolder,
    plan: TrainingPlan,
    setup: Setup,
    console: Console,
    resumed: Resumed | None,
    callbacks: Sequence[pl.Callback],
) -> Session:
    """Loads the model, attaches the adapter and builds everything that trains it.

    Args:
        run: The run's folder.
        plan: What it does.
        setup: What is known before weights load.
        console: Where it speaks.
        resumed: What changed in the config of a run that goes on; None for a new one.
        callbacks: Called before those of the run.

    Raises:
        LoralabError: The model cannot be loaded, a target does not exist, it does not fit in memory, or a
            checkpoint is damaged.
    """
    config, data = plan.config, setup.data
    seed_generators(config.seed)
    meter = MemoryMeter(setup.device)
    meter.mark("baseline")
    module = build_module(run, plan, setup, meter)
    plan = settled(run, plan, module, meter, console)
    # All begin with the same adapter; from here on each draws dropout of its own.
    seed_generators((config.seed + rank()) % LARGEST_SEED)
    datamodule = DataModule(data, plan.steps, plan.layout, plan.size, setup.tokenizer.pad_token_id)
    recorder = Recorder(config.callbacks.log_every, meter)
    checkpoints = Checkpoints(run, config.callbacks, recorder, console)
    early_stopping = EarlyStopping(config.callbacks.early_stopping, console)
    watch = build_watch(run, plan, setup, module)
    restore = take_up(run, module, checkpoints, resumed, console)
    progress = [ProgressLine(console, recorder)] if config.callbacks.progress else []
    profiler = config.callbacks.profiler
    profiling = [Profiler(run, profiler, recorder, console)] if profiler.enabled else []
    watching = [
        *callbacks, restore, recorder, MemoryMonitor(meter), *progress,
        Stability(module, recorder, checkpoints, console), early_stopping, *watch, *profiling, checkpoints,
        Interrupts(checkpoints, recorder),
    ]  # fmt: skip
    num_validations = plan.steps.num_validations(module.finished_steps)
    trainer = build_trainer(config, run, setup.device, num_validations, watching)
    restore.restore_callbacks(watching)
    return Session(
        run, plan, setup, module, datamodule, trainer, recorder, checkpoints, meter, console, early_stopping,
        watch,
    )  # fmt: skip


def build_watch(run: RunFolder, plan: TrainingPlan, setup: Setup, module: AdapterModule) -> list[Watch]:
    """Builds what answers the first prompts of the validation split, where there are any."""
    config = plan.config.eval
    examples = setup.data.val.examples[: config.watch_prompts]
    chats = [example for example in examples if not example.conversation.is_text]

    def answers() -> list[dict[str, str]]:
        """Answers with the weights as they are."""
        return watched_answers(module.model, setup.tokenizer, chats, config.watch_tokens)

    if not chats or not (is_first() or is_sharded(plan.config.trainer)):
        return []
    return [Watch(run.watch_path if is_first() else None, answers)]


def build_module(run: RunFolder, plan: TrainingPlan, setup: Setup, meter: MemoryMeter) -> AdapterModule:
    """Loads the model with its adapter and puts the objective around it."""
    config, data = plan.config, setup.data
    model = load_adapted(run, plan, setup, meter)
    module = MODULES[config.objective.name](
        model, plan.steps, config, setup.dtype, data.source_names, max(1, len(data.shares))
    )
    run_faster(model, config.trainer.speed)
    if config.trainer.speed.compile:
        compile_elementwise(causal_lm(model))
    if is_sharded(config.trainer):
        shard_base(model)
        module.limit.is_fixed = True
    if world_size() > 1:
        # Other GPUs may round otherwise where an adapter begins with values computed from the base.
        begun = (module.masters.state_dict(), module.method_state())
        weights, state = on_first(lambda: move_data_to_device(begun, torch.device("cpu")))
        module.masters.load_state_dict(weights)
        module.load_method_state(state)
    meter.mark("adapted")
    return module


def settled(
    run: RunFolder, plan: TrainingPlan, module: AdapterModule, meter: MemoryMeter, console: Console
) -> TrainingPlan:
    """Returns the plan with the size of micro-batches that a real step has shown to fit."""
    estimated = plan.size
    plan = with_size(plan, settle_size(run, plan, module, meter))
    if plan.size != estimated:
        console.print(f"trainer.batch_size=auto: a trial took more. {plan.notes[-1]}", soft_wrap=True)
    elif plan.config.trainer.batch_size == AUTO and not meter.can_reset:
        console.print(
            "trainer.batch_size=auto: no peak can be started anew here, so the estimate stands untried",
            soft_wrap=True,
        )
    return plan


def take_up(
    run: RunFolder,
    module: AdapterModule,
    checkpoints: Checkpoints,
    resumed: Resumed | None,
    console: Console,
) -> Restore:
    """Puts a run back to its newest whole checkpoint, its metrics with it; a new run stays as it is."""

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    if is_first():
        clear_leftovers(run.checkpoints_dir)
    checkpoint = on_first(lambda: load_newest(run.checkpoints_dir, say))
    changes = resumed.changes if resumed else ()
    options = [
        key for group, _, key in (change.key.rpartition(".") for change in changes) if group == "optim"
    ]
    restore = Restore(checkpoint, module, checkpoints, options)
    if is_first():
        if (lost := cut_back(run, checkpoint)) is not None:
            say(lost)
        if resumed is not None:
            record_changes(resumed, module.finished_steps)
    return restore


def cut_back(run: RunFolder, checkpoint: Checkpoint | None) -> str | None:
    """Cuts what a run wrote back to where it goes on; returns what is lost of it in words, if anything is."""
    if checkpoint is not None:
        # Answers of a validation that was not finished are asked for again.
        keep_until(run.watch_path, checkpoint.progress["val_step"])
        step, size = checkpoint.progress["step"], checkpoint.progress["metrics_bytes"]
        return cut_metrics(run.metrics_path, size, step)
    measured = metrics.BASE_VAL_PERPLEXITY in read_json(run.summary_path)
    for path in (run.metrics_path, run.watch_path):
        keep_until(path, 0 if measured else -1)
    return None


def load_adapted(run: RunFolder, plan: TrainingPlan, setup: Setup, meter: MemoryMeter) -> PeftModel:
    """Loads the frozen base, writes down how it is stored, and puts a new adapter on it."""
    config = plan.config
    base = load_base(config.model, config.quant, setup.device, setup.dtype)
    meter.mark("loaded")
    if is_first():
        describe_base(run, base)
    link = CudaLink() if config.trainer.offload_activations else None
    recompute_layers(base, config.trainer.gradient_checkpointing, link)
    in_blocks = config.trainer.speed.block_attention
    if plan.layout.is_packed:
        enable_document_attention(base, in_blocks)
    elif is_padding_free(config):
        allow_padding_free(base, in_blocks)
    return attach_adapter(base, config.lora, config.seed, adapter_context(config, setup, plan.steps))


def describe_base(run: RunFolder, base: PreTrainedModel) -> None:
    """Writes down how the base is stored; of a resumed run, checks that it still is."""
    manifest = read_json(run.manifest_path)
    if BASE in manifest:
        check_same_base(manifest[BASE], base)
    else:
        write_json(run.manifest_path, {**manifest, BASE: base_facts(base)})
        write_json(run.path / "quantization.json", {"layers": storage_table(base)})


def settle_size(
    run: RunFolder, plan: TrainingPlan, module: AdapterModule, meter: MemoryMeter
) -> MicroBatchSize:
    """Returns how steps are cut: as configured, as a resumed run found it, or as a real step shows to fit."""
    if plan.config.trainer.batch_size != AUTO:
        return plan.size
    if (stored := on_first(lambda: stored_size(run))) is not None:
        return stored
    if is_sharded(plan.config.trainer):
        # A trial in which one process ran out of memory would leave the others waiting.
        return plan.size
    size = try_size(plan.size, module, plan.memory, plan.layout, meter)
    size = min(gathered(size), key=lambda each: each.tokens or 0)
    if is_first():
        write_json(run.manifest_path, {**read_json(run.manifest_path), MICRO_BATCH_TOKENS: size.tokens})
    return size


def stored_size(run: RunFolder) -> MicroBatchSize | None:
    """Returns what `trainer.batch_size=auto` found for a run; None where it has not yet."""
    tokens = read_json(run.manifest_path).get(MICRO_BATCH_TOKENS)
    return None if tokens is None else MicroBatchSize(tokens=tokens)
