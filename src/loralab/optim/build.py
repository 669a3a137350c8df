"""Optimizers by name."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from loralab.config.schema import OptimConfig


def _adamw(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    first, second = config.betas
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=(first, second),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], OptimConfig], torch.optim.Optimizer]] = {
    "adamw": _adamw
}
"""Builders by `optim.name`."""


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """Builds the optimizer that `config.name` names over float32 parameters."""
    return OPTIMIZERS[config.name](parameters, config)
