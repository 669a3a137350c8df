"""Gated feed-forward layers whose three LoRA layers run as one function.

What goes into the last one, the product of gate and upward projection, is one of the three widest tensors of
a decoder layer. Layer by layer it is kept for the gradient of that adapter; here it is computed again from
the other two, which the gradient of the activation needs anyway. The gradients of the input add up inside
the products.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn

from loralab.model.elementwise import is_gated, is_silu, lean_feed_forward
from loralab.model.fused_lora import Update, as_update, is_fused

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def fuse_feed_forward(model: PeftModel) -> int:
    """Lets gated layers whose projections `fuse_lora` has changed run as one function, in place.

    Returns:
        How many are changed.
    """
    layers = [
        module
        for module in model.modules()
        if is_gated(type(module))
        and is_silu(module.act_fn)
        and all(is_fused(each) for each in _projections(module))
    ]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


class FusedFeedForward(torch.autograd.Function):
    """y = down(silu(gate(x)) * up(x)) (arXiv:2002.05202, equation 6), each projection with a LoRA update."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: Sequence[tuple[float, nn.Module]], *learned: Tensor) -> Tensor:
        """Multiplies.

        Args:
            ctx: Keeps the input, gate and upward projection, and what lies between A and B.
            x: [..., hidden]
            frozen: Scaling and base layer of the gate, the upward and the downward projection.
            *learned: A and B of each, one after another.

        Returns:
            [..., hidden]
        """
        gate, up, down = _updates(learned, frozen)
        rows = x.flatten(0, -2)
        gated, of_gate = gate.product(rows)
        raised, of_up = up.product(rows)
        product, of_down = down.product(F.silu(gated).mul_(raised))
        ctx.save_for_backward(rows, gated, raised, of_gate, of_up, of_down, *learned)
        ctx.frozen, ctx.shape = frozen, x.shape
        return product.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Returns the gradients of x, and of A and B of each projection."""
        # Under gradient checkpointing they can be asked for once.
        rows, gated, raised, *others = ctx.saved_tensors
        inner, learned = others[:3], others[3:]
        gate, up, down = _updates(learned, ctx.frozen)
        gradient, activated = gradients[0].flatten(0, -2), F.silu(gated)
        lifted = gradient @ down.up
        of_learned = [*down.of_parameters(gradient, lifted, activated * raised, inner[2])]
        of_product = down.of_input(gradient, lifted)
        of_raised = activated.mul_(of_product)
        of_gated = torch.ops.aten.silu_backward(of_product.mul_(raised), gated)
        of_x: Tensor | None = None
        for layer, each, between in ((up, of_raised, inner[1]), (gate, of_gated, inner[0])):
            lifted = each @ layer.up
            of_learned = [*layer.of_parameters(each, lifted, rows, between), *of_learned]
            if ctx.needs_input_grad[0]:
                of_x = layer.of_input(each, lifted, of_x)
        return None if of_x is None else of_x.view(ctx.shape), None, *of_learned


def _updates(learned: Sequence[Tensor], frozen: Sequence[tuple[float, nn.Module]]) -> list[Update]:
    """Puts the parts of each layer together."""
    pairs = zip(learned[::2], learned[1::2], frozen, strict=True)
    return [Update(down, up, scaling, base) for down, up, (scaling, base) in pairs]


def _projections(layer: Any) -> list[nn.Module]:
    return [getattr(layer, name) for name in PROJECTIONS]


def _forward(layer: Any, x: Tensor) -> Tensor:
    """Runs a gated layer; its projections each for itself where one is watched, or does more."""
    projections = _projections(layer)
    updates = [update for each in projections if (update := as_update(each, x)) is not None]
    if len(updates) < len(projections) or any(map(_is_watched, projections)):
        return lean_feed_forward(layer, x)
    learned = [part for update in updates for part in (update.down, update.up)]
    frozen = [(update.scaling, update.base) for update in updates]
    product: Tensor = FusedFeedForward.apply(x, frozen, *learned)  # type: ignore[no-untyped-call]
    return product


def _is_watched(layer: nn.Module) -> bool:
    """Says whether something waits for a layer to run."""
    hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks
    return any(hooks)
