"""Optimizers by name."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from loralab.config.schema import OptimConfig


def _adamw(parameters: Iterable[nn.Parameter], config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    first, second = config.betas
    return torch.optim.AdamW(
        parameters,
        lr=lr,
        betas=(first, second),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], OptimConfig, float], torch.optim.Optimizer]] = {
    "adamw": _adamw
}
"""Builders by `optim.name`."""


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimConfig, lr: float
) -> torch.optim.Optimizer:
    """Builds the optimizer that `config.name` names over float32 parameters; `lr` is its first rate."""
    return OPTIMIZERS[config.name](parameters, config, lr)
