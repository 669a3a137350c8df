"""Norms and gated activations that keep nothing but their inputs for the backward pass.

Autograd keeps a float32 copy of what each norm takes, and of each gate the activation beside what it came
from: a quarter of all activations. Here they are computed again from the inputs, in fewer passes over memory.
"""

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

GATED = "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))"
"""What the gated feed-forward layers of transformers compute (arXiv:2002.05202, equation 6)."""


def recompute_elementwise(model: nn.Module) -> int:
    """Lets norms and gates keep only their inputs, in place; returns how many are changed.

    Args:
        model: Its RMS norms with frozen weights and the code of Llama's, and its feed-forward layers gated
            by SiLU are changed.
    """
    num_changed = 0
    for module in model.modules():
        kind = type(module)
        if is_llama_norm(kind):
            module.forward = MethodType(_norm, module)
        elif is_gated(kind) and is_silu(module.act_fn):
            module.forward = MethodType(lean_feed_forward, module)
        else:
            continue
        num_changed += 1
    return num_changed


class LeanNorm(torch.autograd.Function):
    """y = w * x / sqrt(mean(x^2) + eps), with w frozen (arXiv:1910.07467, equation 4)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Computes in float32 and rounds before the weight, as transformers does.

        Args:
            ctx: Keeps the input and its scale.
            x: [..., hidden]
            weight: w, [hidden]
            eps: Added to the mean.

        Returns:
            [..., hidden]
        """
        wide = x.to(torch.float32, copy=True)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return weight * wide.mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Returns dx = s (w g - n mean(n w g)), with s the scale and n = s x."""
        x, weight, scale = ctx.saved_tensors
        normed = x.to(torch.float32, copy=True).mul_(scale)
        of_normed = (gradients[0] * weight).float()
        mean = torch.linalg.vecdot(of_normed, normed).div_(x.shape[-1]).unsqueeze(-1)
        return of_normed.addcmul_(normed, mean, value=-1).mul_(scale).to(x.dtype), None, None


class LeanGate(torch.autograd.Function):
    """y = silu(gate) * up (arXiv:2002.05202, equation 6)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Multiplies two tensors of one shape; keeps both."""
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Returns the gradients of gate and up."""
        gate, up = ctx.saved_tensors
        of_gate = torch.ops.aten.silu_backward(gradients[0] * up, gate)
        return of_gate, F.silu(gate).mul_(gradients[0])


def is_llama_norm(kind: type[nn.Module]) -> bool:
    """Whether the norms of a class compute what Llama's do: most families have copies of its code."""
    return kind.__name__.endswith("RMSNorm") and source(kind.forward) == source(LlamaRMSNorm.forward)


def is_gated(kind: type[nn.Module]) -> bool:
    """Whether the layers of a class compute `GATED`."""
    return GATED in source(kind.forward)


def is_silu(activation: Any) -> bool:
    """Whether an activation is x * sigmoid(x) (arXiv:1702.03118)."""
    return type(activation).__name__ in ("SiLU", "SiLUActivation")


def feed_forward(product: Callable[..., Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Returns the forward pass of a gated layer whose activation and product are one function.

    Args:
        product: From gate and upward projection, both [..., width], to [..., width].
    """

    def forward(self: Any, x: Tensor) -> Tensor:
        hidden: Tensor = self.down_proj(product(self.gate_proj(x), self.up_proj(x)))
        return hidden

    return forward


def source(function: Any) -> str:
    """Returns the code of a function; nothing where there is none to read."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def _norm(layer: Any, x: Tensor) -> Tensor:
    """Runs a norm; one whose weight learns as transformers does."""
    if layer.weight.requires_grad:
        return cast(Tensor, type(layer).forward(layer, x))
    normed: Tensor = LeanNorm.apply(x, layer.weight, layer.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    product: Tensor = LeanGate.apply(gate, up)  # type: ignore[no-untyped-call]
    return product


lean_feed_forward = feed_forward(_gate)
"""The forward pass of a gated layer that keeps only gate and upward projection."""
