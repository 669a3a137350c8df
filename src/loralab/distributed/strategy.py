"""How Lightning runs a module in several processes that exchange what they must by themselves."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

from loralab.distributed.group import noticing_the_lost, wait_for_all
from loralab.distributed.place import Place


class Replicas(DDPStrategy):
    """DDP without its wrapper: a step adds up the gradients of the adapter's float32 masters once.

    DistributedDataParallel exchanges the gradients of the parameters that the model computes with, which are
    narrower, in every backward pass.
    """

    def __init__(self, place: Place, device: torch.device) -> None:
        """Takes the place of this process; the group exists already."""
        self._device = device
        super().__init__(
            parallel_devices=[device] * place.local_world_size,
            cluster_environment=TorchElasticEnvironment(),
        )

    @property
    def root_device(self) -> torch.device:
        """Where this process computes."""
        return self._device

    def setup(self, trainer: pl.Trainer) -> None:
        """Prepares module and optimizer as for a single process."""
        Strategy.setup(self, trainer)

    def _setup_model(self, model: Any) -> Any:
        return model

    def reduce(self, *args: Any, **kwargs: Any) -> Any:
        """Lets Lightning count batches; a process that ended is reported as such."""
        with noticing_the_lost():
            return super().reduce(*args, **kwargs)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Hands an object to all; a process that ended is reported as such."""
        with noticing_the_lost():
            return super().broadcast(obj, src)

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Waits for the others; one that ended is reported as such."""
        wait_for_all()
