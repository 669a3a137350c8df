"""LoRA layers that compute the frozen product and the low-rank update together.

PEFT runs them one after the other, with passes over the whole output in between: to scale the update, to
add it, and in 4 bits to copy the output; the backward pass adds up two gradients of the input. Here the
matrix products add to what is there. Layers that do more than W x + s B A x run as PEFT's own.
"""

from types import MethodType
from typing import Any, NamedTuple, cast

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import bnb as lora_bnb
from torch import Tensor, nn

from loralab.model.int8 import Int8Linear

FUSIBLE = (LoraLinear, lora_bnb.Linear4bit, lora_bnb.Linear8bitLt)


def fuse_lora(model: PeftModel) -> int:
    """Lets the model's LoRA layers run in fewer passes, in place; returns how many are changed."""
    layers = [layer for layer in model.modules() if type(layer) in FUSIBLE and _has_frozen_weight(layer)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


class Update(NamedTuple):
    """The parts of a LoRA layer that is nothing but W x + b + s B A x, with W and b frozen."""

    down: Tensor
    """A, [rank, in]"""
    up: Tensor
    """B, [out, rank]"""
    scaling: float
    """s"""
    base: nn.Module
    """The layer that holds W and b."""

    def product(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiplies [tokens, in]; returns [tokens, out], and x A^T for the backward pass: [tokens, rank]."""
        inner = rows @ self.down.T
        bias = cast("Tensor | None", self.base.bias)
        weight = frozen_weight(self.base, rows.dtype)
        product = rows @ weight.T if bias is None else torch.addmm(bias.to(rows.dtype), rows, weight.T)
        return product.addmm_(inner, self.up.T, alpha=self.scaling), inner

    def of_parameters(
        self, gradient: Tensor, lifted: Tensor, rows: Tensor, inner: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the gradients of A and B: s (g B)^T x, with g B given, and s g^T (x A^T)."""
        return (lifted.T @ rows).mul_(self.scaling), (gradient.T @ inner).mul_(self.scaling)

    def of_input(self, gradient: Tensor, lifted: Tensor, sums: Tensor | None = None) -> Tensor:
        """Returns g W + s (g B) A, [tokens, in]; where `sums` are given it adds to them, in place."""
        weight = frozen_weight(self.base, gradient.dtype)
        found = gradient @ weight if sums is None else sums.addmm_(gradient, weight)
        return found.addmm_(lifted, self.down, alpha=self.scaling)


class FusedLora(torch.autograd.Function):
    """y = x W^T + s (x A^T) B^T (arXiv:2106.09685, equation 3), with W frozen and stored in any way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, scaling: float, base: nn.Module) -> Tensor:
        """Multiplies.

        Args:
            ctx: Keeps the input and x A^T; W is restored again in the backward pass.
            x: [..., in]
            down: A, [rank, in]
            up: B, [out, rank]
            scaling: s
            base: The layer that holds W and a frozen bias.

        Returns:
            [..., out]
        """
        rows, layer = x.flatten(0, -2), Update(down, up, scaling, base)
        product, inner = layer.product(rows)
        ctx.save_for_backward(rows, inner, down, up)
        ctx.scaling, ctx.base, ctx.shape = scaling, base, x.shape
        return product.view(*x.shape[:-1], len(up))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Returns the gradients of x, A and B: g W + s (g B) A, s (g B)^T x and s g^T (x A^T)."""
        rows, inner, down, up = ctx.saved_tensors
        layer, gradient = Update(down, up, ctx.scaling, ctx.base), gradients[0].flatten(0, -2)
        lifted = gradient @ up
        of_x = layer.of_input(gradient, lifted).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return of_x, *layer.of_parameters(gradient, lifted, rows, inner), None, None


def frozen_weight(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """Returns the weight of a linear layer as numbers, [out, in]: its own, or restored from its codes.

    Args:
        layer: `nn.Linear`, or one of those of bitsandbytes.
        dtype: Of the result.
    """
    if isinstance(layer, Linear4bit):
        weight: Any = layer.weight
        # A weight that FSDP has put together again has lost the state; the layer keeps it.
        state: Any = getattr(weight, "quant_state", None) or layer.quant_state
        return dequantize_4bit(weight.data, state).to(dtype)
    if isinstance(layer, Int8Linear):
        return layer.restored(dtype)
    return cast(Tensor, layer.weight).to(dtype)


def _has_frozen_weight(layer: Any) -> bool:
    base = layer.get_base_layer()
    # A GPU multiplies 8-bit weights by 8-bit inputs, with no 16-bit weight in between.
    is_known = type(base) is nn.Linear or isinstance(base, Linear4bit | Int8Linear)
    return is_known and not any(parameter.requires_grad for parameter in base.parameters())


def is_fused(layer: Any) -> bool:
    """Says whether `fuse_lora` has changed a layer."""
    return getattr(vars(layer).get("forward"), "__func__", None) is _forward


def as_update(layer: Any, x: Tensor) -> Update | None:
    """Returns the parts of a LoRA layer where multiplying by them is all that it does with an input."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(names) != 1 or layer.lora_variant:
        return None
    if not _is_bare(layer, names[0], x):
        return None
    down, up = layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight
    return Update(down, up, layer.scaling[names[0]], layer.get_base_layer())


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Runs the layer, together where that is all it does."""
    if args or kwargs or (update := as_update(layer, x)) is None:
        return cast(Tensor, type(layer).forward(layer, x, *args, **kwargs))
    product: Tensor = FusedLora.apply(x, *update)  # type: ignore[no-untyped-call]
    return product


def _is_bare(layer: Any, name: str, x: Tensor) -> bool:
    """Whether nothing is dropped or cast on the way, and the restored weight is what is multiplied by."""
    down, up, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    drops = isinstance(dropout, nn.Dropout) and dropout.training and dropout.p > 0
    base = layer.get_base_layer()
    on_gpu_in_8_bits = isinstance(base, Int8Linear) and x.device.type != "cpu"
    same_dtype = x.dtype == down.weight.dtype == up.weight.dtype
    computes_so = getattr(base, "compute_dtype", None) in (None, x.dtype)
    casts = not (same_dtype and computes_so) or torch.is_autocast_enabled(x.device.type)
    return not (drops or on_gpu_in_8_bits or casts) and up.bias is None
