"""The two factors of a low-rank update, and the weights that they are worked out from."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from loralab.errors import ModelError


class Pair(NamedTuple):
    """The factors of an update scale x B A, in float32."""

    down: Tensor
    """A: [rank, in]"""
    up: Tensor
    """B: [out, rank]"""


def split_pair(left: Tensor, values: Tensor, right: Tensor) -> Pair:
    """Gives each factor the square root of the singular values.

    Args:
        left: [out, rank]
        values: [rank]
        right: [rank, in]
    """
    roots = values.sqrt()
    return Pair((roots[:, None] * right).contiguous(), (left * roots).contiguous())


def full_weight(name: str, layer: nn.Module) -> Tensor:
    """Returns the weight of an unquantized linear layer in float32: [out, in].

    Raises:
        ModelError: It is quantized.
    """
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or hasattr(weight, "quant_state"):
        raise ModelError(
            f"{name} is quantized, so this lora.init cannot take its first update out of the weight."
        )
    values = weight.detach().to(torch.float32, copy=True)
    return values.T if isinstance(layer, Conv1D) else values
