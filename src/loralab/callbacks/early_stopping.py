"""Ends training where the validation loss improves no longer."""

from typing import Any

import lightning.pytorch as pl
from rich.console import Console

from loralab.config.callbacks import EarlyStoppingConfig
from loralab.modules.base import AdapterModule


class EarlyStopping(pl.Callback):
    """Counts validations that are not clearly better than the best one before.

    It comes before the callback that saves, so that a run continued from a checkpoint counts on.
    """

    def __init__(self, config: EarlyStoppingConfig, console: Console) -> None:
        """Starts with no validation."""
        self.config = config
        self.console = console
        self.best: float | None = None
        """The loss that must be improved on, in nats."""
        self.waited = 0
        self.reason: str | None = None
        """Why training stopped; None where it did not stop early."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run counts on from."""
        return {"best": self.best, "waited": self.waited, "reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state back."""
        self.__dict__.update(state_dict)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops at once where the run had stopped already, unless its patience is longer now."""
        patience = self.config.patience
        if patience is None or self.waited < patience:
            self.reason = None
        trainer.should_stop = self.reason is not None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Compares, and stops where patience is at its end."""
        loss = pl_module.val_loss
        if self.best is None or loss < self.best - self.config.min_improvement:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.config.patience is None or self.waited < self.config.patience:
            return
        if pl_module.finished_steps == pl_module.plan.total_steps:
            return
        self.reason = (
            f"validation loss not below {self.best:.4f} by more than {self.config.min_improvement:g} in "
            f"{self.waited} validations"
        )
        trainer.should_stop = True
        self.console.print(
            f"stopped early after step {pl_module.finished_steps}: {self.reason} (callbacks.early_stopping)",
            soft_wrap=True,
        )
