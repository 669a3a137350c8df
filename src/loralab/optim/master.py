"""Float32 master weights for adapters that compute in a narrower dtype."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class MasterWeights:
    """Keeps a float32 copy of each trainable parameter; gradients gather there, in float32.

    The optimizer updates the masters, and `publish` rounds them into the model. Small updates
    that bfloat16 would swallow are kept, and the model still computes in bfloat16 throughout.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype) -> None:
        """Copies the parameters, casts the model's own to `dtype` and hooks their gradients."""
        self.model_parameters = dict(parameters)
        # A float32 parameter becomes the master itself, unless the model goes on computing with it.
        self.masters = {
            name: nn.Parameter(parameter.detach().to(torch.float32, copy=dtype == torch.float32))
            for name, parameter in parameters.items()
        }
        for name, parameter in self.model_parameters.items():
            parameter.data = parameter.data.to(dtype)
            parameter.register_post_accumulate_grad_hook(self._gather_into(self.masters[name]))

    @staticmethod
    def _gather_into(master: nn.Parameter) -> Callable[[Tensor], None]:
        def gather(parameter: Tensor) -> None:
            """Adds the gradient to the master's in float32 and drops the narrow one."""
            assert parameter.grad is not None
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad.add_(parameter.grad)
            parameter.grad = None

        return gather

    def parameters(self) -> list[nn.Parameter]:
        """Lists what the optimizer updates."""
        return list(self.masters.values())

    @torch.no_grad()
    def publish(self) -> None:
        """Rounds the masters into the model's parameters."""
        torch._foreach_copy_(
            [p.data for p in self.model_parameters.values()], list[Tensor](self.parameters())
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Returns detached float32 copies by parameter name."""
        return {name: master.detach().clone() for name, master in self.masters.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes values back and publishes them.

        Raises:
            KeyError: The names differ from this model's.
        """
        if state.keys() != self.masters.keys():
            raise KeyError(f"adapter weights differ in {sorted(state.keys() ^ self.masters.keys())[:3]}")
        for name, master in self.masters.items():
            master.copy_(state[name])
        self.publish()
