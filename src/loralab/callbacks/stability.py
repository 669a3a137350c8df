"""Acts on what the guard of the module found: says it, writes it down, goes back, stops."""

from collections import Counter
from typing import Any

import lightning.pytorch as pl
from rich.console import Console

from loralab import metrics
from loralab.callbacks.checkpoints import Checkpoints, planned_checkpoint
from loralab.callbacks.recorder import Recorder
from loralab.data.collate import StepBatch
from loralab.errors import ConfigError
from loralab.modules.base import AdapterModule
from loralab.modules.guard import Incident


class Stability(pl.Callback):
    """Reports incidents and takes up a checkpoint again where the loss does not return.

    It comes before the callback that saves: a checkpoint holds what is known after the step.
    """

    def __init__(
        self, module: AdapterModule, recorder: Recorder, checkpoints: Checkpoints, console: Console
    ) -> None:
        """Watches a module."""
        self.module = module
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.console = console
        self.counts: Counter[str] = Counter()
        """Incidents of the run by kind."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run decides by."""
        return {
            "guard": self.module.guard.state_dict(),
            "limit": self.module.limit.state_dict(),
            "counts": dict(self.counts),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state back."""
        self.module.guard.load_state_dict(state_dict["guard"])
        self.module.limit.load_state_dict(state_dict["limit"])
        self.counts = Counter(state_dict["counts"])

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: pl.Trainer,
        pl_module: AdapterModule,
        outputs: dict[str, Any],
        batch: StepBatch,
        batch_idx: int,
    ) -> None:
        """Reports what happened to the step, and goes back or stops where it must.

        Raises:
            ConfigError: The run cannot be helped.
        """
        for incident in pl_module.incidents:
            self._report(trainer, pl_module, incident, batch)
        guard = pl_module.guard
        before = guard.rollback_due(batch.step)
        if before is not None:
            planned = planned_checkpoint(before, pl_module.plan.val_interval, self.checkpoints.config)
            to = self.checkpoints.roll_back(trainer, pl_module, planned)
            if to is None:
                raise ConfigError(
                    f"the loss did not return after step {before + 1}, and no checkpoint is older. "
                    f"{self._advice(pl_module)}"
                )
            self._report(trainer, pl_module, guard.rolled_back(batch.step, to), batch)
        if guard.is_spent():
            listed = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
            raise ConfigError(
                f"training does not get stable: {listed} by step {batch.step + 1} "
                f"(callbacks.stability.max_interventions={guard.config.max_interventions}). "
                f"{self._advice(pl_module)}"
            )

    def _report(
        self, trainer: pl.Trainer, module: AdapterModule, incident: Incident, batch: StepBatch
    ) -> None:
        self.counts[incident.kind] += 1
        # Lines stay in the order of their steps, wherever a run was stopped and continued.
        self.recorder.flush(trainer, module)
        line = {
            metrics.INCIDENT_KIND: incident.kind,
            metrics.INCIDENT_CAUSE: incident.cause,
            metrics.INCIDENT_ROWS: list(batch.rows),
            metrics.INCIDENT_COUNT: self.counts.total(),
        }
        self.recorder.write(trainer, incident.step, line)
        self.recorder.last_incident = f"step {incident.step} {incident.kind}: {incident.cause}"
        self.console.print(f"incident: {self.recorder.last_incident}", soft_wrap=True)

    @staticmethod
    def _advice(module: AdapterModule) -> str:
        return (
            f"Use a lower optim.lr than {module.peak_lr:g}, a longer schedule.warmup, or look at the rows of "
            "the incidents in metrics.jsonl."
        )
