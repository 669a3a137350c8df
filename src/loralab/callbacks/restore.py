"""Puts a run back to where its checkpoint was taken."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from loralab.callbacks.checkpoints import Checkpoints, own_generators
from loralab.errors import ConfigError, ModelError
from loralab.modules.base import AdapterModule
from loralab.runs.checkpoint import Checkpoint
from loralab.runs.generators import restore_random_state


class Restore(pl.Callback):
    """Restores weights and counters at once, optimizer and random generators when training starts."""

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        module: AdapterModule,
        checkpoints: Checkpoints,
        changed: Sequence[str] = (),
    ) -> None:
        """Does nothing where there is no checkpoint.

        Args:
            checkpoint: What to go on from.
            module: What trains.
            checkpoints: What saves the next ones.
            changed: Options of the optimizer, such as `weight_decay`, that the run goes on with anew.

        Raises:
            ModelError: The checkpoint is that of another adapter.
        """
        self.checkpoint = checkpoint
        self.changed = changed
        if checkpoint is None:
            return
        check_same_adapter(checkpoint.weights, module.masters.state_dict())
        module.masters.load_state_dict(checkpoint.weights)
        module.load_method_state(checkpoint.state["method"])
        module.finished_steps = checkpoint.progress["step"]
        module.val_loss = checkpoint.progress["val_loss"]
        checkpoints.best = checkpoint.progress["best"]
        checkpoints.val_step = checkpoint.progress["val_step"]
        checkpoints.restored = checkpoint.state

    def restore_callbacks(self, callbacks: Sequence[pl.Callback]) -> None:
        """Gives each callback its state back."""
        states = self.checkpoint.state["callbacks"] if self.checkpoint else {}
        for callback in callbacks:
            if type(callback).__name__ in states:
                callback.load_state_dict(states[type(callback).__name__])

    def on_train_start(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Restores what Lightning has built by now, last of all the random generators."""
        if self.checkpoint is not None:
            self._restore_optimizer(trainer.optimizers[0])
            restore_random_state(own_generators(self.checkpoint.state, pl_module), pl_module.device)

    def _restore_optimizer(self, optimizer: Any) -> None:
        now = [
            {name: group[name] for name in self.changed if name in group} for group in optimizer.param_groups
        ]
        saved = self.checkpoint.state["optimizer"]  # type: ignore[union-attr]
        if len(saved["param_groups"]) != len(now):
            raise ConfigError(
                "the optimizer's state in the checkpoint has other groups of parameters: a resumed run "
                "cannot begin or end weight decay. Leave optim.weight_decay out, or start a new run."
            )
        optimizer.load_state_dict(saved)
        # A state brings the options that it was saved with.
        for group, options in zip(optimizer.param_groups, now, strict=True):
            group.update(options)


def check_same_adapter(saved: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> None:
    """Refuses weights of another adapter, also of a rank of 1, which would be spread over all others.

    Raises:
        ModelError: Names or shapes differ.
    """
    for name in {**saved, **now}:
        shapes = [list(each[name].shape) if name in each else None for each in (saved, now)]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"the run's checkpoint does not fit: {name} is {shapes[0] or 'absent'} in it and "
                f"{shapes[1] or 'absent'} in the adapter. Leave out what changes the adapter."
            )
