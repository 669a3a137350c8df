"""What an adapter method does in a training step besides its loss."""

from collections.abc import Mapping
from typing import Any


class StepHooks:
    """The places in a step where a method may act; most methods do nothing there."""

    def after_backward(self) -> None:
        """Adds gradients to the masters, before they are clipped."""

    def after_optimizer_step(self, finished_steps: int, was_taken: bool) -> None:
        """Changes the masters before they are rounded into the model.

        Args:
            finished_steps: Steps of the run so far, with this one.
            was_taken: Whether the gradients are still there; those of a step that is left out are zero.
        """

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs, in tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes a state back."""
