"""Profiles a few steps: a trace, and a table of where a step's time goes."""

import contextlib
import gc
import os
import time
from pathlib import Path

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, record_function

from loralab.callbacks.recorder import Recorder
from loralab.callbacks.step_ranges import step_ranges
from loralab.config.callbacks import ProfilerConfig
from loralab.data.collate import StepBatch
from loralab.distributed.group import is_first, rank
from loralab.modules.base import AdapterModule
from loralab.runs.folder import RunFolder, write_json, write_text
from loralab.runs.profile import (
    FIGURES,
    TABLE,
    TRACE,
    Course,
    StepProfile,
    cells,
    describe,
    profile_steps,
    read_trace,
    to_markdown,
)
from loralab.runs.step_parts import STEP

LOG_LEVEL, SILENT = "KINETO_LOG_LEVEL", "99"
"""What PyTorch's tracer reads before it prints its own notes, and a level that it prints nothing at."""


class Profiler(pl.Callback):
    """Records one stretch of steps after a warm-up; every process records, the first one writes the table.

    The warm-up counts from where training begins or goes on. The stretch ends early at a validation and
    wherever training does. A run that has a table is not profiled again.
    """

    def __init__(self, run: RunFolder, config: ProfilerConfig, recorder: Recorder, console: Console) -> None:
        """Writes into `profile/` of a run's folder."""
        self.run = run
        self.config = config
        self.recorder = recorder
        self.console = console
        self._begin_at: int | None = None
        """Finished steps at which recording begins; None where it does not, or is over."""
        self._begun_at = 0
        self._recording: profile | None = None
        self._ranges = contextlib.ExitStack()
        self._step: record_function | None = None
        self._course = Course((), 0, 0, 0, 0.0)
        self._marked_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Decides where to begin."""
        if (self.run.profile_dir / FIGURES).exists():
            return
        self._begun_at = pl_module.finished_steps
        begin_at = self._begun_at + self.config.first_step
        if begin_at < pl_module.plan.total_steps:
            self._begin_at = begin_at
            return
        self._say(
            f"no profile: {pl_module.plan.total_steps - self._begun_at} steps are left and "
            f"callbacks.profiler.first_step={self.config.first_step} of them would be warm-up"
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Begins where the stretch follows a validation, or is the first of the run."""
        self._mark(pl_module)
        self._begin_if_due(trainer, pl_module)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: AdapterModule, outputs: object, batch: StepBatch, batch_idx: int
    ) -> None:
        """Ends a step; ends the recording where it has its steps or a validation comes."""
        if self._begin_at is None:
            return
        is_validated = pl_module.plan.next_validation(batch.step) == pl_module.finished_steps
        before = self._marked_s
        self._mark(pl_module)
        if self._recording is None:
            if batch.step > self._begun_at:
                self._count_warmup(batch.tokens, self._marked_s - before)
            if not is_validated:
                self._begin_if_due(trainer, pl_module)
            return
        self._end_step()
        self._course = self._course._replace(
            steps=(*self._course.steps, pl_module.finished_steps), tokens=self._course.tokens + batch.tokens
        )
        if is_validated or len(self._course.steps) == self.config.steps:
            self._finish(trainer, pl_module)
        else:
            self._begin_step(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Writes what was recorded until training stopped early."""
        if self._recording is not None:
            self._finish(trainer, pl_module)

    def on_exception(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: AdapterModule, exception: BaseException
    ) -> None:
        """Writes what was recorded; whatever fails here must not replace the error that ended the run."""
        if self._recording is None:
            return
        try:
            self._end_step()
            self._save(self._stop())
        except Exception as error:
            self._say(f"no profile: {type(error).__name__}: {error}")

    def _begin_if_due(self, trainer: pl.Trainer, module: AdapterModule) -> None:
        if self._begin_at is None or self._recording is not None or module.finished_steps < self._begin_at:
            return
        os.environ.setdefault(LOG_LEVEL, SILENT)
        activities = [ProfilerActivity.CPU]
        if module.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._recording = profile(activities=activities, profile_memory=self.config.memory)
        self._recording.start()
        self._ranges.enter_context(step_ranges(trainer, module))
        # The objects of the ranges would set off a full collection, which takes long, within the first step.
        gc.collect()
        self._begin_step(module)

    def _begin_step(self, module: AdapterModule) -> None:
        self._step = record_function(f"{STEP}{module.finished_steps + 1}")
        self._step.__enter__()

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None

    def _stop(self) -> profile:
        recording, self._recording, self._begin_at = self._recording, None, None
        assert recording is not None
        self._ranges.close()
        recording.stop()
        return recording

    def _finish(self, trainer: pl.Trainer, module: AdapterModule) -> None:
        """Writes and shows the profile beside the time of training: the recorder's clock stands still."""
        recording = self._stop()
        self.recorder.flush(trainer, module)
        try:
            found = self._save(recording)
        except (OSError, ValueError, RuntimeError) as error:
            # A full disk shows as any of them; training goes on.
            self._say(f"no profile: {error}")
        else:
            if found is not None:
                self.console.print(step_table(found))
                self._say(f"{describe(found)} All of it: {self.run.profile_dir}")
        self.recorder.on_train_start(trainer, module)

    def _save(self, recording: profile) -> StepProfile | None:
        """Writes the trace of this process and, in the first one, the table."""
        folder = self.run.profile_dir
        folder.mkdir(exist_ok=True)
        path = folder / (TRACE if is_first() else f"trace-rank{rank()}.json.gz")
        _write_trace(recording, path)
        if not is_first():
            return None
        found = profile_steps(read_trace(path), self._course)
        if found is not None:
            write_text(folder / TABLE, to_markdown(found))
            write_json(folder / FIGURES, found.to_json())
        return found

    def _mark(self, module: AdapterModule) -> None:
        """Reads the clock once the device has done what it was given."""
        if self._begin_at is None:
            return
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        self._marked_s = time.perf_counter()

    def _count_warmup(self, tokens: int, seconds: float) -> None:
        course = self._course
        self._course = course._replace(
            warmup_steps=course.warmup_steps + 1,
            warmup_tokens=course.warmup_tokens + tokens,
            warmup_s=course.warmup_s + seconds,
        )

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False)


def step_table(found: StepProfile) -> Table:
    """Draws the parts of a step for the terminal."""
    table = Table(title="where a step's time goes", title_justify="left")
    for column in ("part", "ms per step", "share", "calls"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for row in found.parts:
        table.add_row(*cells(row))
    table.add_section()
    table.add_row("step", f"{found.step_ms:,.2f}", "100.0%", "")
    return table


def _write_trace(recording: profile, path: Path) -> None:
    """Writes a trace under a temporary name, then renames it."""
    scratch = path.with_name(f".{path.name}")
    try:
        recording.export_chrome_trace(str(scratch))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
