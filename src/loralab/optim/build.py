"""Optimizers by name."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW, PagedAdamW8bit
from torch import nn
from torch.optim import Optimizer

from loralab.config.optim_rules import paged_fault
from loralab.config.schema import OptimConfig
from loralab.errors import ConfigError
from loralab.optim.groups import LR_SCALE, parameter_groups

Groups = list[dict[str, Any]]
Builder = Callable[[Groups, OptimConfig], Optimizer]
UNSCALED = 1.0
"""Adafactor's smallest size of a parameter (epsilon 2), above that of any number of an adapter."""


def _moments(config: OptimConfig) -> dict[str, Any]:
    first, second = config.betas
    return {"betas": (first, second), "eps": config.eps}


def _adamw(groups: Groups, config: OptimConfig) -> Optimizer:
    return torch.optim.AdamW(groups, **_moments(config), fused=True)


def _bitsandbytes(kind: type[Optimizer]) -> Builder:
    return lambda groups, config: kind(groups, **_moments(config))


def _adafactor(groups: Groups, config: OptimConfig) -> Optimizer:
    """Builds Adafactor (arXiv:1804.04235) without the scaling of section 8.

    Scaled by the size of a matrix, B would hardly move: it starts at zero.
    """
    return torch.optim.Adafactor(groups, eps=(None, UNSCALED))


def _sgd(groups: Groups, config: OptimConfig) -> Optimizer:
    return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov)


def _lion(groups: Groups, config: OptimConfig) -> Optimizer:
    from pytorch_optimizer import Lion

    first, second = config.betas
    return Lion(groups, betas=(first, second))


def _lamb(groups: Groups, config: OptimConfig) -> Optimizer:
    """Builds LAMB as in arXiv:1904.00962v3, algorithm 2: without bias correction, decay inside the ratio."""
    from pytorch_optimizer import Lamb

    return Lamb(groups, **_moments(config), weight_decouple=False, adam_debias=True)


def _novograd(groups: Groups, config: OptimConfig) -> Optimizer:
    from pytorch_optimizer import NovoGrad

    return NovoGrad(groups, **_moments(config))


def _muon(groups: Groups, config: OptimConfig) -> Optimizer:
    """Builds Muon for A and B, in steps sized as in arXiv:2502.16982, section 2.2, and AdamW for the rest."""
    from pytorch_optimizer import Muon

    matrices = {"momentum": config.momentum, "nesterov": config.nesterov, "use_adjusted_lr": True}
    others = _moments(config)
    return Muon([
        {**group, "use_muon": group["is_low_rank"], **(matrices if group["is_low_rank"] else others)}
        for group in groups
    ])  # fmt: skip


def _schedule_free_adamw(groups: Groups, config: OptimConfig) -> Optimizer:
    from pytorch_optimizer import ScheduleFreeAdamW

    return ScheduleFreeAdamW(groups, **_moments(config))


OPTIMIZERS: dict[str, Builder] = {
    "adamw": _adamw,
    "adamw_8bit": _bitsandbytes(AdamW8bit),
    "paged_adamw": _bitsandbytes(PagedAdamW),
    "paged_adamw_8bit": _bitsandbytes(PagedAdamW8bit),
    "lion": _lion,
    "adafactor": _adafactor,
    "sgd": _sgd,
    "lamb": _lamb,
    "novograd": _novograd,
    "muon": _muon,
    "schedule_free_adamw": _schedule_free_adamw,
}
"""Builders by `optim.name`."""


def build_optimizer(parameters: Mapping[str, nn.Parameter], config: OptimConfig, lr: float) -> Optimizer:
    """Builds the optimizer that `config.name` names over float32 parameters.

    Args:
        parameters: What trains, by the names that a `PeftModel` gives it.
        config: The optimizer and its groups.
        lr: Its first learning rate.

    Raises:
        ConfigError: `optim.lr_pattern` names nothing that trains.
    """
    groups = [{**group, "lr": lr * group[LR_SCALE]} for group in parameter_groups(parameters, config)]
    return OPTIMIZERS[config.name](groups, config)


def check_optimizer(name: str, device: torch.device) -> None:
    """Refuses an optimizer that the device cannot run.

    Raises:
        ConfigError: It pages, and there is no GPU.
    """
    if device.type == "cpu" and (fault := paged_fault(name)):
        raise ConfigError(fault)
