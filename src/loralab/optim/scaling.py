"""Loss scaling for fp16, whose smallest number is larger than many gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loralab.errors import ModelError
from loralab.metrics import TRAIN_LOSS_SCALE, TRAIN_SKIPPED_STEPS

FIRST_SCALE, FACTOR, PATIENCE = 2.0**16, 2.0, 2000
"""The first scale; by what it grows and shrinks; steps without overflow before it grows, as in
`torch.amp.GradScaler`. Powers of two, so that scaling rounds nothing."""
SMALLEST_SCALE = 2.0**-14
"""Below it a gradient of 1 is no normal number of float16: halving further does not help."""


class LossScaler:
    """Multiplies the loss before the backward pass and divides the gradients after it.

    Dynamic scaling (arXiv:1710.03740, section 3.2): a step whose gradients overflow is left out and halves
    the scale; it doubles after `PATIENCE` steps without. In other dtypes nothing is scaled or checked.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Scales where the compute dtype is float16."""
        self.enabled = dtype == torch.float16
        self.factor = FIRST_SCALE if self.enabled else 1.0
        self.good_steps = 0
        self.skipped_steps = 0

    def scale(self, loss: Tensor) -> Tensor:
        """Returns the loss to run backward from."""
        return loss * self.factor if self.enabled else loss

    @torch.no_grad()
    def unscale(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Divides the gradients by the scale and adapts it.

        Args:
            parameters: The float32 masters, whose gradients have gathered.

        Returns:
            Whether the step may be taken. Where not, the gradients are set to zero.

        Raises:
            ModelError: No scale is small enough.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not self.enabled or not gradients:
            return True
        torch._foreach_mul_(gradients, 1 / self.factor)
        if torch.stack(torch._foreach_norm(gradients, torch.inf)).isfinite().all():
            self.good_steps += 1
            if self.good_steps == PATIENCE:
                self.factor, self.good_steps = self.factor * FACTOR, 0
            return True
        torch._foreach_zero_(gradients)
        self.factor, self.good_steps = self.factor / FACTOR, 0
        self.skipped_steps += 1
        if self.factor < SMALLEST_SCALE:
            raise ModelError(
                "the gradients overflow float16 at every scale. Use trainer.precision=bf16 or fp32."
            )
        return False

    def figures(self) -> dict[str, float]:
        """Names the scale and the steps left out for the metrics; nothing in other dtypes."""
        if not self.enabled:
            return {}
        return {TRAIN_LOSS_SCALE: self.factor, TRAIN_SKIPPED_STEPS: self.skipped_steps}

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run goes on with."""
        return {"factor": self.factor, "good_steps": self.good_steps, "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes a state back; an empty one changes nothing."""
        self.__dict__.update(state)
