"""How much memory the state of an optimizer takes."""

from collections.abc import Callable

import torch

FLOAT32_BYTES = 4
BLOCK_8BIT, SMALLEST_8BIT = 256, 4096
"""Values that share a constant in 8-bit optimizers, and the fewest of a tensor that is kept in 8 bits
(arXiv:2110.02861, section 2)."""


def _adamw_8bit(shape: torch.Size) -> int:
    numbers = shape.numel()
    if numbers < SMALLEST_8BIT:
        return 2 * FLOAT32_BYTES * numbers
    return 2 * (numbers + FLOAT32_BYTES * -(-numbers // BLOCK_8BIT))


def _adafactor(shape: torch.Size) -> int:
    return FLOAT32_BYTES * (shape.numel() if len(shape) == 1 else shape.numel() // shape[-1] + shape[-1])


OPTIMIZER_BYTES: dict[str, Callable[[torch.Size], int]] = {
    "adamw": lambda shape: 2 * FLOAT32_BYTES * shape.numel(),
    "adamw_8bit": _adamw_8bit,
    "adafactor": _adafactor,
    "lion": lambda shape: FLOAT32_BYTES * shape.numel(),
    "sgd": lambda shape: 0,
    "sgd_momentum": lambda shape: FLOAT32_BYTES * shape.numel(),
}
"""From the shape of a parameter to the bytes of an optimizer's state: two moments in float32 (AdamW,
arXiv:1711.05101), or in 8 bits (arXiv:2110.02861), one row and one column of the second (Adafactor,
arXiv:1804.04235), one moment (Lion, arXiv:2302.06675)."""
