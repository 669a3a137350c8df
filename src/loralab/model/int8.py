"""Frozen 8-bit layers that compute the same in training and evaluation and keep no activations.

bitsandbytes' own layer differs on a CPU: in training it multiplies by the dequantized weights, in evaluation
it quantizes the inputs too, so that a validation loss would be that of another model. And on every device it
keeps its input for a gradient of the weight that a frozen base never asks for, out of reach of gradient
checkpointing.
"""

from typing import Any

import torch
import torch.nn.functional as F
from bitsandbytes.autograd._functions import matmul
from bitsandbytes.nn.modules import Linear8bitLt
from torch import Tensor

LEVELS = 127
"""Largest code of a weight, which stands for the largest absolute weight of its row."""


def dequantize_int8(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns codes x scale / 127 for each row (arXiv:2208.07339, section 2.1, absmax quantization).

    Args:
        codes: [out, in], int8
        scales: [out], float32: the largest absolute weight of each row.
        dtype: Of the result.
    """
    return codes.to(dtype).mul_(scales[:, None] / LEVELS)


class Int8Linear(Linear8bitLt):
    """An 8-bit layer for a frozen base.

    A CPU multiplies by the dequantized weights. A GPU runs LLM.int8(), where inputs above the threshold are
    multiplied in 16 bits (arXiv:2208.07339, section 3.2).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies by the frozen weights.

        Args:
            x: [..., in]

        Returns:
            [..., out], in the dtype of `x`.
        """
        codes, scales = self._stored()
        product: Tensor = _FrozenProduct.apply(x, codes, scales, self.state)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(x.dtype)

    def restored(self, dtype: torch.dtype) -> Tensor:
        """Returns the weight as numbers, [out, in]."""
        return dequantize_int8(*self._stored(), dtype)

    def _stored(self) -> tuple[Tensor, Tensor]:
        weight: Any = self.weight
        state: Any = self.state
        if weight.SCB is not None:
            state.SCB, weight.CB, weight.SCB = weight.SCB, None, None
            state.CB = None
        if state.CB is None or state.CB.device != weight.device:
            # Moving a module moves its parameters only.
            state.CB, state.SCB = weight.data, state.SCB.to(weight.device)
        return state.CB, state.SCB


class _FrozenProduct(torch.autograd.Function):
    """The product with frozen weights; its backward needs the codes alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor, state: Any) -> Tensor:
        """Returns x W^T: [..., out]."""
        ctx.save_for_backward(codes, scales)
        if x.device.type == "cpu":
            return F.linear(x, dequantize_int8(codes, scales, x.dtype))
        state.is_training = False
        product: Tensor = matmul(x, codes, state=state)
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradient of the input, grad W, and none for the rest."""
        codes, scales = ctx.saved_tensors
        (gradient,) = gradients
        return gradient @ dequantize_int8(codes, scales, gradient.dtype), None, None, None


def mend_int8(layer: Linear8bitLt) -> None:
    """Turns a frozen layer of bitsandbytes into an `Int8Linear`, in place."""
    if not layer.state.has_fp16_weights:
        layer.__class__ = Int8Linear
