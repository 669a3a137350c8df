"""How much memory the state of an optimizer takes."""

from collections.abc import Callable

import torch

from loralab.config.schema import OptimConfig
from loralab.optim.groups import is_low_rank

FLOAT32_BYTES = 4
BLOCK_8BIT, SMALLEST_8BIT = 256, 4096
"""Values that share a constant in 8-bit optimizers, and the fewest of a tensor that is kept in 8 bits
(arXiv:2110.02861, section 2)."""


def _none(shape: torch.Size) -> int:
    return 0


def _one_moment(shape: torch.Size) -> int:
    return FLOAT32_BYTES * shape.numel()


def _two_moments(shape: torch.Size) -> int:
    return 2 * FLOAT32_BYTES * shape.numel()


def _two_in_8_bits(shape: torch.Size) -> int:
    numbers = shape.numel()
    if numbers < SMALLEST_8BIT:
        return _two_moments(shape)
    return 2 * (numbers + FLOAT32_BYTES * -(-numbers // BLOCK_8BIT))


def _row_and_column(shape: torch.Size) -> int:
    return FLOAT32_BYTES * (shape.numel() if len(shape) == 1 else shape.numel() // shape[-1] + shape[-1])


OPTIMIZER_BYTES: dict[str, Callable[[torch.Size], int]] = {
    "adamw": _two_moments,
    "adamw_8bit": _two_in_8_bits,
    "paged_adamw": _two_moments,
    "paged_adamw_8bit": _two_in_8_bits,
    "lion": _one_moment,
    "adafactor": _row_and_column,
    "sgd": _none,
    "sgd_momentum": _one_moment,
    "lamb": _two_moments,
    "novograd": _one_moment,
    "muon": _one_moment,
    "schedule_free_adamw": _two_moments,
}
"""From the shape of a parameter to the bytes of an optimizer's state, single numbers left out: moments in
float32 or in 8 bits (arXiv:2110.02861), a row and a column of the second (Adafactor, arXiv:1804.04235), or
the second and the point that the gradients move (schedule-free, arXiv:2405.15682)."""


def kind_of_state(config: OptimConfig) -> str:
    """Returns the key of `OPTIMIZER_BYTES` for a configured optimizer."""
    return "sgd_momentum" if config.name == "sgd" and config.momentum else config.name


def state_bytes(kind: str, name: str, shape: torch.Size) -> int:
    """Returns the bytes of an optimizer's state for a parameter.

    Args:
        kind: A key of `OPTIMIZER_BYTES`.
        name: Of the parameter: Muon leaves what is neither A nor B to AdamW.
        shape: Its shape.
    """
    return OPTIMIZER_BYTES["adamw" if kind == "muon" and not is_low_rank(name) else kind](shape)
