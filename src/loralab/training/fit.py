"""A training run, from config to adapter, comparison and report."""

import time
from dataclasses import dataclass

import lightning.pytorch as pl
from rich.console import Console

from loralab import metrics
from loralab.callbacks.checkpoints import Checkpoints
from loralab.callbacks.interrupts import Interrupts, interruptible
from loralab.callbacks.progress import ProgressLine
from loralab.callbacks.recorder import Recorder
from loralab.callbacks.restore import Restore
from loralab.config.load import task_overrides
from loralab.config.schema import TrainConfig
from loralab.data.datamodule import DataModule
from loralab.data.layout import Layout
from loralab.data.plan import StepPlan
from loralab.errors import Interrupted
from loralab.evaluation.compare import compare
from loralab.evaluation.perplexity import mean_nll
from loralab.evaluation.tables import print_comparison
from loralab.model.attention import enable_document_attention
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, count_parameters, save_adapter
from loralab.modules.base import AdapterModule
from loralab.modules.registry import MODULES
from loralab.runs.checkpoint import load_checkpoint
from loralab.runs.folder import RunFolder, read_json
from loralab.runs.memory import peak_gib
from loralab.training.dry_run import plan_run
from loralab.training.introduction import print_data
from loralab.training.loggers import build_loggers, finish_loggers, trim_metrics
from loralab.training.record import begin_training, close_run, record_comparison, update_summary
from loralab.training.resume import check_same_data, last_checkpoint, reopen
from loralab.training.setup import Setup, make_plan, prepare


@dataclass(frozen=True)
class Session:
    """The parts of one run that its stages share."""

    run: RunFolder
    config: TrainConfig
    setup: Setup
    module: AdapterModule
    datamodule: DataModule
    trainer: pl.Trainer
    recorder: Recorder
    checkpoints: Checkpoints
    console: Console


def train(config: TrainConfig) -> RunFolder:
    """Runs, resumes or, with `dry_run`, only plans a training run and returns its folder.

    Raises:
        LoralabError: Something the user must change.
        Interrupted: A signal came; the message says how to continue.
    """
    if config.dry_run:
        return plan_run(config)
    started, console = time.perf_counter(), Console(highlight=False)
    if config.resume is not None:
        run, config = reopen(config, task_overrides())
        setup = prepare(config)
        check_same_data(run, setup.data.files)
    else:
        setup = prepare(config)
        run = begin_training(config, setup)
    console.print(f"run folder: {run.path}", soft_wrap=True)
    spent = read_json(run.summary_path).get("wall_s", 0.0)
    status = "failed"
    try:
        with interruptible(run):
            session = assemble(run, config, setup, console)
            fit(session)
            keep_best(session)
            if config.eval.enabled:
                compare_with_base(session)
            status = "completed"
    except Interrupted:
        status = "interrupted"
        raise
    finally:
        finish_loggers()
        update_summary(run, {"status": status, "wall_s": round(spent + time.perf_counter() - started, 1)})
        close_run(run, status, console)
    return run


def assemble(run: RunFolder, config: TrainConfig, setup: Setup, console: Console) -> Session:
    """Loads the model, attaches the adapter and builds everything that trains it.

    Raises:
        LoralabError: The model cannot be loaded, a target does not exist, or a checkpoint is damaged.
    """
    trainer_config, callbacks = config.trainer, config.callbacks
    layout, plan = make_plan(config, setup.data)
    base = load_base(config.model, config.quant, setup.device, setup.dtype)
    if trainer_config.gradient_checkpointing:
        base.activation_checkpointing_enable()
    if layout.is_packed:
        enable_document_attention(base)
    model = attach_adapter(base, config.lora, config.seed)
    data = setup.data
    module = MODULES[config.objective.name](
        model, plan, config, setup.dtype, data.source_names, max(1, len(data.shares))
    )
    datamodule = DataModule(data, plan, layout, trainer_config.batch_size, setup.tokenizer.pad_token_id)
    recorder = Recorder(callbacks.log_every)
    checkpoints = Checkpoints(run, callbacks.checkpoint_every, recorder)
    restore = Restore(last_checkpoint(run, console), module, recorder, checkpoints)
    progress = [ProgressLine(console, recorder)] if callbacks.progress else []
    trim_metrics(run.metrics_path, module.finished_steps)
    trainer = pl.Trainer(
        accelerator=setup.device.type,
        devices=1,
        max_epochs=plan.num_validations(module.finished_steps),
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=build_loggers(config, run),
        callbacks=[restore, recorder, *progress, checkpoints, Interrupts(checkpoints, recorder)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    _introduce(console, config, setup, module, (layout, plan))
    return Session(run, config, setup, module, datamodule, trainer, recorder, checkpoints, console)


def fit(session: Session) -> None:
    """Measures the base on the validation split once, then trains to the last step."""
    module, trainer, run = session.module, session.trainer, session.run
    if metrics.BASE_VAL_PERPLEXITY not in read_json(run.summary_path):
        module.eval()
        with module.model.disable_adapter():
            nll = mean_nll(module.model, session.datamodule.val_dataloader(), module.source_names)
        Recorder.write(trainer, 0, metrics.validation_figures(nll.mean, nll.by_source))
        update_summary(run, {metrics.BASE_VAL_PERPLEXITY: metrics.perplexity(nll.mean)})
        session.console.print(f"base val loss {nll.mean:.4f}")
    try:
        if module.finished_steps < module.plan.total_steps:
            trainer.fit(module.train(), session.datamodule)
    finally:
        # Lightning moves the module to the CPU when it is done; the comparison wants it where it was.
        module.to(session.setup.device)
        _summarize(session)


def keep_best(session: Session) -> None:
    """Puts the best weights into the model and writes them as `adapter/`."""
    best = load_checkpoint(session.run.checkpoints_dir / "best")
    session.module.masters.load_state_dict(best.weights)
    update_summary(session.run, {
        metrics.VAL_LOSS: best.progress["val_loss"],
        metrics.VAL_PERPLEXITY: metrics.perplexity(best.progress["val_loss"]),
    })  # fmt: skip
    save_adapter(session.module.model, session.setup.tokenizer, best.weights, session.run.adapter_dir)


def compare_with_base(session: Session) -> None:
    """Compares base and tuned model on the test split, in the run folder and in the terminal."""
    config, run = session.config.eval, session.run
    model = session.module.model.eval()
    comparison = compare(model, session.setup.tokenizer, session.setup.data, config, session.console)
    record_comparison(run, comparison, config.samples)
    update_summary(run, {metrics.MEMORY_PEAK_GIB: round(peak_gib(session.setup.device), 3)})
    print_comparison(session.console, comparison.figures, comparison.predictions[: config.samples])
    for logger in session.trainer.loggers:
        logger.log_metrics(
            {k: v for k, v in comparison.figures.items() if v is not None}, session.module.finished_steps
        )
        logger.finalize("success")


def _summarize(session: Session) -> None:
    module, recorder = session.module, session.recorder
    num_trainable, num_total = count_parameters(module.model)
    speed = recorder.tokens / recorder.train_s if recorder.train_s else None
    update_summary(
        session.run,
        {
            "step": module.finished_steps,
            metrics.TRAIN_LOSS: recorder.latest.get(metrics.TRAIN_LOSS),
            metrics.TRAIN_TOKENS_PER_S: speed and round(speed, 1),
            metrics.TRAIN_SUPERVISED_TOKENS: recorder.supervised_tokens,
            metrics.MEMORY_PEAK_GIB: round(peak_gib(session.setup.device), 3),
            metrics.TRAINABLE_PARAMS: num_trainable,
            metrics.TOTAL_PARAMS: num_total,
        },
    )


def _introduce(
    console: Console,
    config: TrainConfig,
    setup: Setup,
    module: AdapterModule,
    planned: tuple[Layout, StepPlan],
) -> None:
    num_trainable, num_total = count_parameters(module.model)
    layout, plan = planned
    dtype = str(setup.dtype).removeprefix("torch.")
    console.print(
        f"{config.model.name} · quant {config.quant.name} · {dtype} on {setup.device.type} · "
        f"rank {config.lora.r}, {num_trainable:,} of {num_total:,} parameters train "
        f"({num_trainable / num_total:.2%})",
        soft_wrap=True,
    )
    print_data(console, config, setup.data, layout)
    console.print(
        f"{plan.total_steps} steps, {plan.steps_per_epoch} per epoch, validation every {plan.val_interval}"
    )
