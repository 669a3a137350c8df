"""The average that schedule-free training learns, beside the point that it trains at."""

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

AVERAGED, POINT = "z", "y"
"""What a schedule-free optimizer keeps of a parameter, and where its saved state keeps the parameter."""


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
        optimizer.register_load_state_dict_post_hook(_take_points)
        self._first_betas = {
            p: group["betas"][0] for group in optimizer.param_groups for p in group["params"]
        }

    def of(self, parameter: nn.Parameter) -> Tensor:
        """Returns x: z + (y - z) / beta1; the parameter itself before the first step."""
        moved = self.optimizer.state.get(parameter, {}).get(AVERAGED)
        if moved is None:
            return parameter.detach()
        return parameter.detach().lerp(moved, 1 - 1 / self._first_betas[parameter])


def weight_average(optimizer: Optimizer) -> WeightAverage | None:
    """Returns what reads the average of an optimizer; None for those that keep none."""
    keeps_one = any("weight_lr_power" in group for group in optimizer.param_groups)
    return WeightAverage(optimizer) if keeps_one else None


def _add_points(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    listed = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    points = {
        number: {**kept, POINT: listed[number].detach().clone()} for number, kept in state["state"].items()
    }
    return {**state, "state": points}


def _take_points(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if (point := optimizer.state.get(parameter, {}).pop(POINT, None)) is not None:
                parameter.data.copy_(point)
