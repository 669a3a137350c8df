"""Float32 master weights for adapters that compute in a narrower dtype."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loralab.optim.averaging import WeightAverage, weight_average


class MasterWeights:
    """Keeps a float32 copy of each trainable parameter; gradients gather there, in float32.

    The optimizer updates the masters, and `publish` rounds them into the model. Small updates
    that bfloat16 would swallow are kept, and the model still computes in bfloat16 throughout.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype) -> None:
        """Copies the parameters, casts the model's own to `dtype` and hooks their gradients."""
        self.model_parameters = dict(parameters)
        self.average: WeightAverage | None = None
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

    def follow(self, optimizer: Optimizer) -> None:
        """Lets the masters' values be what their optimizer averages, where it averages."""
        average = weight_average(optimizer)
        if average is None:
            return

        def loaded(_: Optimizer) -> None:
            """Takes the average up again, and gives the model the point to train at."""
            self.average = average
            self.publish()

        self.average = average
        optimizer.register_load_state_dict_post_hook(loaded)

    def publish(self) -> None:
        """Rounds the masters into the model's parameters."""
        self._fill_model(self.parameters())

    def publish_average(self) -> None:
        """Rounds the average into the model where the optimizer keeps one, until `publish` is called."""
        if self.average is not None:
            self._fill_model(list(self._values().values()))

    @torch.no_grad()
    def _fill_model(self, values: Sequence[Tensor]) -> None:
        torch._foreach_copy_([p.data for p in self.model_parameters.values()], list(values))

    def _values(self) -> dict[str, Tensor]:
        if self.average is None:
            return {name: master.detach() for name, master in self.masters.items()}
        return {name: self.average.of(master) for name, master in self.masters.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Returns detached float32 copies of the adapter's values by parameter name."""
        return {name: value.clone() for name, value in self._values().items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes values back and publishes them.

        They are the average where an optimizer averages; loading its state puts the point to train at back.

        Raises:
            KeyError: The names differ from this model's.
        """
        if state.keys() != self.masters.keys():
            raise KeyError(f"adapter weights differ in {sorted(state.keys() ^ self.masters.keys())[:3]}")
        for name, master in self.masters.items():
            master.copy_(state[name])
        self.average = None
        self.publish()
