"""The trainer of Lightning: what loops is Lightning, what a step or an epoch is the plan says."""

import warnings
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning

from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.distributed.group import is_first, place, world_size
from loralab.distributed.strategy import Replicas
from loralab.runs.folder import RunFolder
from loralab.training.loggers import build_loggers


def build_trainer(
    config: TrainConfig,
    run: RunFolder,
    device: torch.device,
    num_validations: int,
    callbacks: Sequence[pl.Callback],
) -> pl.Trainer:
    """Builds a trainer whose epochs are the stretches between validations.

    Args:
        config: Says where metrics go; only the first process writes them.
        run: The run's folder.
        device: Where this process runs.
        num_validations: How many are still due.
        callbacks: In the order in which they are called.
    """
    # Advice on worker processes; a step's batch is built in well under a millisecond.
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    trainer = pl.Trainer(
        **_placement(device),
        max_epochs=num_validations,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        # What a validation counts in inference mode could not be counted on in training.
        inference_mode=False,
        # The datamodule deals the rows of a step itself.
        use_distributed_sampler=False,
        logger=build_loggers(config, run) if is_first() else False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # Signals are taken by `Interrupts` and `interruptible`. Lightning's own handler, and what it asks before
    # each step of several processes, exchange something that nobody may be waiting for.
    trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
    return trainer


def _nothing() -> None:
    """Stands in for what is done elsewhere."""


def is_sharded(trainer: TrainerConfig) -> bool:
    """Says whether each process holds a share of the base only, so that all must run it together."""
    return trainer.strategy == "fsdp" and world_size() > 1


def _placement(device: torch.device) -> dict[str, Any]:
    """Says to Lightning where this process runs, and beside which others."""
    if world_size() == 1:
        return {"accelerator": device.type, "devices": 1}
    here = place()
    return {
        "accelerator": device.type, "devices": here.local_world_size, "num_nodes": here.num_nodes,
        "strategy": Replicas(here, device),
    }  # fmt: skip
