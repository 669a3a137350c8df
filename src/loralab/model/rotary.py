"""Rotary embeddings in fewer passes over memory.

Transformers' function makes three and a half tensors of the size of its result on the way, and autograd five
and a half on the way back, of which many are new memory.
"""

from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama import modeling_llama

from loralab.model.elementwise import source

FUNCTION, HELPER = "apply_rotary_pos_emb", "rotate_half"
"""What transformers calls the function, and what that calls, in the module of every family."""


def replace_rotary(model: nn.Module) -> int:
    """Lets attention layers turn queries and keys in fewer passes, in place; returns how many are changed.

    Args:
        model: Its attention layers that call a copy of Llama's function are changed.
    """
    layers = [module for module in model.modules() if "forward" not in vars(module)]
    forwards = {kind: _with_lean_rotary(kind) for kind in set(map(type, layers))}
    changed = [(layer, forward) for layer in layers if (forward := forwards[type(layer)]) is not None]
    for layer, forward in changed:
        layer.forward = MethodType(forward, layer)
    return len(changed)


class LeanRotary(torch.autograd.Function):
    """y = x cos + [-x2, x1] sin (arXiv:2104.09864, equation 34), with pairs half a head apart as in Llama."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turns.

        Args:
            ctx: Keeps cosines and sines, which all layers share.
            x: [..., dim]
            cos: Of the same dtype, [..., dim] with ones to broadcast.
            sin: The same.

        Returns:
            [..., dim], laid out as x.
        """
        ctx.save_for_backward(cos, sin)
        low, high = sin.chunk(2, -1)
        return _turned(x, cos, -1, low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Turns back: the transposed map."""
        cos, sin = ctx.saved_tensors
        low, high = sin.chunk(2, -1)
        return _turned(gradients[0], cos, 1, high, low), None, None


def apply_rotary(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Turns queries and keys as transformers' function does, whose arguments it takes.

    Args:
        q: [rows, heads, seq, dim]
        k: [rows, key heads, seq, dim]
        cos: [rows, seq, dim]
        sin: [rows, seq, dim]
        unsqueeze_dim: Where the heads are.

    Returns:
        Both, in their shapes.
    """
    if len({each.dtype for each in (q, k, cos, sin)}) > 1:
        turned: tuple[Tensor, Tensor] = modeling_llama.apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim)
        return turned
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    q, k = (LeanRotary.apply(each, cos, sin) for each in (q, k))  # type: ignore[no-untyped-call]
    return q, k


def _turned(x: Tensor, cos: Tensor, sign: int, low: Tensor, high: Tensor) -> Tensor:
    """Returns x cos + sign [x2 low, -x1 high], where x is [x1, x2]."""
    first, second = x.chunk(2, -1)
    turned = x * cos
    to_first, to_second = turned.chunk(2, -1)
    to_first.addcmul_(second, low, value=sign)
    to_second.addcmul_(first, high, value=-sign)
    return turned


def _with_lean_rotary(kind: type[nn.Module]) -> FunctionType | None:
    """Returns a class's forward pass that calls `apply_rotary`; None where its own function is another.

    What is patched in its module later does not reach it.
    """
    forward: Any = kind.forward
    if not isinstance(forward, FunctionType) or FUNCTION not in forward.__code__.co_names:
        return None
    if not _is_llamas(forward.__globals__.get(FUNCTION)):
        return None
    names = {**forward.__globals__, FUNCTION: apply_rotary}
    changed = FunctionType(
        forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    changed.__kwdefaults__ = forward.__kwdefaults__
    return changed


def _is_llamas(function: Any) -> bool:
    """Says whether a function and what it calls are copies of Llama's: NanoChat's turns the other way."""
    theirs = modeling_llama.apply_rotary_pos_emb
    if not isinstance(function, FunctionType) or hasattr(function, "__wrapped__"):
        return False
    halves = (source(each.__globals__.get(HELPER)) for each in (function, theirs))
    return bool(code := source(function)) and code == source(theirs) and len(set(halves)) == 1
