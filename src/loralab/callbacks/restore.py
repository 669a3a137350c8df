"""Puts a run back to where its checkpoint was taken."""

import lightning.pytorch as pl

from loralab.callbacks.checkpoints import Checkpoints
from loralab.callbacks.recorder import Recorder
from loralab.modules.base import AdapterModule
from loralab.runs.checkpoint import Checkpoint, restore_random_state


class Restore(pl.Callback):
    """Restores weights and counters at once, optimizer and random generators when training starts."""

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        module: AdapterModule,
        recorder: Recorder,
        checkpoints: Checkpoints,
    ) -> None:
        """Does nothing where there is no checkpoint."""
        self.checkpoint = checkpoint
        if checkpoint is None:
            return
        module.masters.load_state_dict(checkpoint.weights)
        module.load_method_state(checkpoint.state.get("method", {}))
        module.finished_steps = checkpoint.progress["step"]
        module.val_loss = checkpoint.progress["val_loss"]
        checkpoints.best = checkpoint.progress["best"]
        recorder.load_state_dict(checkpoint.progress["recorder"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores what Lightning has built by now, last of all the random generators."""
        if self.checkpoint is not None:
            trainer.optimizers[0].load_state_dict(self.checkpoint.state["optimizer"])
            restore_random_state(self.checkpoint.state["random"], pl_module.device)
