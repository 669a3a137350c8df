"""What an adapter method does in a training step besides its loss."""

from collections.abc import Mapping
from typing import Any


class StepHooks:
    """The places in a step where a method may act; most methods do nothing there."""

    def after_backward(self) -> None:
        """Adds gradients to the masters, before they are clipped."""

    def after_optimizer_step(self, finished_steps: int) -> None:
        """Changes the masters before they are rounded into the model; their gradients are still there."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs, in tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes a state back."""
