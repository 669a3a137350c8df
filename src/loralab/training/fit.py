"""A training run, from config to adapter, comparison and report."""

import contextlib
import time
from collections.abc import Callable, Sequence

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from rich.console import Console

from loralab import metrics
from loralab.callbacks.interrupts import interruptible
from loralab.callbacks.recorder import Recorder
from loralab.config.load import task_overrides
from loralab.config.schema import TrainConfig
from loralab.distributed.group import (
    agree,
    first_then_others,
    is_first,
    on_first,
    world_size,
)
from loralab.errors import ConfigError, Interrupted
from loralab.evaluation.compare import compare
from loralab.evaluation.tables import print_comparison
from loralab.model.lora import count_parameters, save_adapter
from loralab.modules.stepping import RowTooLarge
from loralab.runs.folder import RunFolder, read_json
from loralab.runs.lock import hold
from loralab.runs.series import load_best
from loralab.training.closing import record_adapter, record_memory
from loralab.training.dry_run import plan_run
from loralab.training.introduction import print_data
from loralab.training.loggers import finish_loggers, keep_adapter, show_samples
from loralab.training.memory_plan import AUTO as MEMORY_AUTO
from loralab.training.plan import less_memory, with_size
from loralab.training.record import (
    begin_training,
    close_run,
    new_run,
    record_comparison,
    update_summary,
)
from loralab.training.resume import check_same_data, check_same_processes, explain_resume, reopen
from loralab.training.session import Session, assemble, stored_size
from loralab.training.setup import prepare
from loralab.training.together import agreed_plan, leaving_together, told_how_to_go_on
from loralab.training.trainer import is_sharded


def train(config: TrainConfig, callbacks: Sequence[pl.Callback] = ()) -> RunFolder:
    """Runs, resumes or, with `dry_run`, only plans a training run and returns its folder.

    Args:
        config: The run's config.
        callbacks: Called before those of the run.

    Raises:
        LoralabError: Something the user must change.
        Interrupted: A signal came; the message says how to continue.
    """
    if config.dry_run:
        return plan_run(config)
    started, console = time.perf_counter(), Console(highlight=False, quiet=not is_first())
    resumed = on_first(lambda: reopen(config, task_overrides())) if config.resume is not None else None
    if config.resume is not None:
        console.print(explain_resume(resumed, config), soft_wrap=True)
    if resumed:
        check_same_processes(resumed)
        config = resumed.config
    elif config.trainer.num_processes != world_size():
        raise ConfigError(
            f"trainer.devices={config.trainer.devices} and trainer.num_nodes={config.trainer.num_nodes}, but "
            f"{world_size()} processes were started. Start the run with train.py."
        )
    setup = first_then_others(lambda: prepare(config))
    plan = agreed_plan(config, setup)
    if resumed and config.trainer.batch_size == MEMORY_AUTO:
        plan = with_size(plan, on_first(lambda: stored_size(resumed.run)) or plan.size)
    agree(lambda: plan.memory.check(plan.request))
    with contextlib.ExitStack() as held:

        def begin() -> RunFolder:
            """Takes a new or stopped run for this process alone."""
            run = resumed.run if resumed else new_run(plan.config, setup)
            held.enter_context(hold(run))
            if resumed:
                check_same_data(run, setup.data.files)
            else:
                begin_training(run, plan.config, setup)
            return run

        run = on_first(begin)
        for line in (f"run folder: {run.path}", *plan.notes):
            console.print(line, soft_wrap=True)

        def build() -> Session:
            return assemble(run, plan, setup, console, resumed, callbacks)

        with leaving_together():
            if is_first():
                run_stages(run, console, started, build)
            else:
                follow(run, build)
    return run


def follow(run: RunFolder, build: Callable[[], Session]) -> None:
    """Trains with the first process, and runs the base with it where each holds a share; it alone writes.

    Raises:
        ProcessLost: Another process ended before the last step.
    """
    with interruptible(run), told_how_to_go_on(run):
        session = build()
        fit(session)
        if is_sharded(session.plan.config.trainer):
            keep_best(session)
            if session.plan.config.eval.enabled:
                compare_with_base(session)


def run_stages(run: RunFolder, console: Console, started: float, build: Callable[[], Session]) -> None:
    """Trains, compares and closes a run; however it ends, its summary and report say so.

    Args:
        run: The run's folder.
        console: Where it speaks.
        started: When the command began, by `time.perf_counter`.
        build: Loads everything that trains.
    """
    spent = read_json(run.summary_path).get("wall_s", 0.0)
    update_summary(run, {"status": "running"})
    status = "failed"
    try:
        with interruptible(run), told_how_to_go_on(run):
            session = build()
            introduce(session)
            fit(session)
            keep_best(session)
            if session.plan.config.eval.enabled:
                compare_with_base(session)
            record_memory(session)
            status = "completed"
    except Interrupted:
        status = "interrupted"
        raise
    finally:
        wall_s = round(spent + time.perf_counter() - started, 1)
        # A disk that is full must not hide what ended the run.
        try:
            with contextlib.suppress(*(() if status == "completed" else (OSError,))):
                update_summary(run, {"status": status, "wall_s": wall_s})
        finally:
            finish_loggers(read_json(run.summary_path))
            close_run(run, status, console)


def introduce(session: Session) -> None:
    """Says how much trains, on what, and for how long."""
    num_trainable, num_total = count_parameters(session.module.model)
    console, config, steps = session.console, session.plan.config, session.plan.steps
    console.print(
        f"{num_trainable:,} of {num_total:,} parameters train ({num_trainable / num_total:.2%})",
        soft_wrap=True,
    )
    print_data(console, config, session.setup.data, session.plan.layout)
    total = f"{steps.total_steps} step{'s' * (steps.total_steps != 1)}"
    interval = "after each" if steps.val_interval == 1 else f"every {steps.val_interval}"
    console.print(f"{total}, {steps.steps_per_epoch} per epoch, validation {interval}")


def fit(session: Session) -> None:
    """Measures the base on the validation split once, then trains to the last step.

    Raises:
        ConfigError: Memory does not hold a single row; the message names settings that take less.
    """
    module, trainer = session.module, session.trainer
    if on_first(lambda: metrics.BASE_VAL_PERPLEXITY not in read_json(session.run.summary_path)):
        measure_base(session)
    try:
        if session.checkpoints.validation_due(module):
            trainer.validate(module, session.datamodule, verbose=False)
        if module.finished_steps < module.plan.total_steps:
            trainer.fit(module.train(), session.datamodule)
    except RowTooLarge as error:
        raise ConfigError(f"{error}. {less_memory(session.plan)}") from error
    finally:
        # Lightning moves the module to the CPU when it is done; the comparison wants it where it was.
        module.to(session.setup.device)
        if is_first():
            _summarize(session)


@torch.no_grad()  # what is counted in inference mode could not be counted on in training
def measure_base(session: Session) -> None:
    """Validates the base model as every later validation does the tuned one."""
    module, trainer = session.module, session.trainer
    module.eval()
    with module.model.disable_adapter():
        for number, batch in enumerate(session.datamodule.val_dataloader()):
            module.validation_step(move_data_to_device(batch, session.setup.device), number)
        module.on_validation_epoch_end()
        for watch in session.watch:
            watch.record(trainer, 0)
    Recorder.write(trainer, 0, module.validation_figures())
    if is_first():
        update_summary(session.run, {metrics.BASE_VAL_PERPLEXITY: metrics.perplexity(module.val_loss)})
    session.console.print(f"base val loss {module.val_loss:.4f}")


def keep_best(session: Session) -> None:
    """Puts the best weights into the model and writes them as `adapter/`."""
    folder, step = session.run.checkpoints_dir, session.checkpoints.best["step"]
    if is_sharded(session.plan.config.trainer):
        best = on_first(lambda: load_best(folder, step, session.console.print))
    else:
        best = load_best(folder, step, session.console.print)
    session.module.masters.load_state_dict(best.weights)
    session.module.load_method_state(best.state["method"])
    if not is_first():
        return
    update_summary(session.run, {
        metrics.VAL_LOSS: best.progress["val_loss"],
        metrics.VAL_PERPLEXITY: metrics.perplexity(best.progress["val_loss"]),
    })  # fmt: skip
    save_adapter(session.module.model, session.setup.tokenizer, best.weights, session.run.adapter_dir)
    keep_adapter(session.trainer.loggers, session.run.adapter_dir)
    record_adapter(session)


def compare_with_base(session: Session) -> None:
    """Compares base and tuned model on the test split, in the run folder and in the terminal."""
    config, run = session.plan.config.eval, session.run
    model = session.module.model.eval()
    comparison = compare(model, session.setup.tokenizer, session.setup.data, config, session.console)
    if not is_first():
        return
    record_comparison(run, comparison, config.samples)
    print_comparison(
        session.console, comparison.figures, comparison.predictions, config.samples, run.samples_path
    )
    samples = comparison.predictions[: config.samples]
    show_samples(session.trainer.loggers, session.module.finished_steps, samples)
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
            metrics.MEMORY_PEAK_GIB: round(session.meter.peak_gib, 3),
            metrics.TRAINABLE_PARAMS: num_trainable,
            metrics.TOTAL_PARAMS: num_total,
            "stopped_early": session.early_stopping.reason,
        },
    )
