"""The average that schedule-free training learns, beside the point that it trains at."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MOVED, POINTS = "z", "points"
"""What a schedule-free optimizer keeps of a parameter, and where its saved state keeps the parameters."""


class WeightAverage:
    """Reads the average x out of a schedule-free optimizer (arXiv:2405.15682, equations 3 to 5).

    The parameters hold y, where gradients are taken, and the state holds z, which the gradients move:
    y = (1 - beta1) z + beta1 x. The parameters are never exchanged for x and back, which would round them:
    x goes into the model alone, and into saved weights; y is saved with the optimizer's state.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        """Lets the saved state of a schedule-free optimizer hold the parameters themselves."""
        self.optimizer = optimizer
        optimizer.register_state_dict_post_hook(_add_points)
        optimizer.register_load_state_dict_pre_hook(_take_points)
        self._first_betas = {
            p: group["betas"][0] for group in optimizer.param_groups for p in group["params"]
        }

    def of(self, parameter: nn.Parameter) -> Tensor:
        """Returns x: z + (y - z) / beta1; the parameter itself before the first step."""
        moved = self.optimizer.state.get(parameter, {}).get(MOVED)
        if moved is None:
            return parameter.detach()
        return parameter.detach().lerp(moved, 1 - 1 / self._first_betas[parameter])


def weight_average(optimizer: Optimizer) -> WeightAverage | None:
    """Returns what reads the average of an optimizer; None for those that keep none."""
    keeps_one = any("weight_lr_power" in group for group in optimizer.param_groups)
    return WeightAverage(optimizer) if keeps_one else None


def _add_points(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    return {**state, POINTS: [parameter.detach() for parameter in _parameters(optimizer)]}


@torch.no_grad()
def _take_points(optimizer: Optimizer, state: dict[str, Any]) -> None:
    for parameter, point in zip(_parameters(optimizer), state[POINTS], strict=True):
        parameter.copy_(point)


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
