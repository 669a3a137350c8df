"""Supervised fine-tuning: cross entropy on the tokens to learn."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loralab.data.masking import IGNORE_INDEX

CHUNK_POSITIONS = 256
"""Positions whose logits exist at once on a CPU: enough that the product with the head runs at full speed."""
TILE_BYTES = 2**22
"""Float32 logits that are turned into losses or gradients at once on a CPU: they stay in its cache."""
LOGITS_BYTES, TILE, FEWEST_POSITIONS = 2**28, 128, 256
"""Most float32 logits that exist at once on a GPU, a quarter of a GiB, in whole tiles of a matrix product:
512 positions of a vocabulary of 128k. In 16 bits n positions take n operations for each byte of the head, and
an H100 does 295 while it reads a byte (989 TFLOP/s, 3.35 TB/s by its data sheet)."""
NllAndGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From logits [num, vocab] and targets [num] to -log p(target) in float32, [num], and its gradient in any
dtype, [num, vocab]; may overwrite the logits."""


def chunk_positions(vocab_size: int, device_type: str) -> int:
    """Returns how many positions have logits at once.

    Args:
        vocab_size: Logits of a position.
        device_type: cpu or cuda.
    """
    if device_type == "cpu":
        return CHUNK_POSITIONS
    return max(FEWEST_POSITIONS, LOGITS_BYTES // (4 * vocab_size) // TILE * TILE)


def plain_nll(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the negative log likelihoods of targets, and p - onehot(target), both in float32.

    Args:
        logits: [num, vocab]
        targets: [num]

    Returns:
        [num] and [num, vocab]
    """
    wide, wanted = logits.float(), targets[:, None]
    error = wide.softmax(-1)
    # The probability of the likeliest token gives the sum of all: unlike the target's, it is never tiny.
    below = wide.amax(-1) - wide.gather(-1, wanted).squeeze(-1)
    losses = below - error.amax(-1).log()
    error.scatter_add_(-1, wanted, error.new_full((), -1.0).expand(wanted.shape))
    return losses, error


def tiled_nll(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what `plain_nll` does, a few logits at a time, and writes the gradient over them.

    Args:
        logits: [num, vocab], overwritten.
        targets: [num]

    Returns:
        [num] in float32, and [num, vocab]
    """
    losses = []
    for tile, wanted in _tiles(logits, targets):
        tile_losses, error = plain_nll(tile, wanted)
        tile.copy_(error)
        losses.append(tile_losses)
    return torch.cat(losses), logits


def _tiles(logits: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the logits and targets of as many positions as a CPU's cache holds in float32."""
    rows = max(1, TILE_BYTES // (4 * logits.shape[-1]))
    return zip(logits.split(rows), targets.split(rows), strict=True)


def supervised_positions(labels: Tensor) -> Tensor:
    """Finds the tokens that are predicted and learned.

    Args:
        labels: [batch, seq], `IGNORE_INDEX` where nothing is learned.

    Returns:
        A mask [batch, seq - 1] over the tokens after the first; each is predicted at the place before it.
    """
    return labels[:, 1:] != IGNORE_INDEX


def token_nll(
    hidden: Tensor,
    targets: Tensor,
    project: Callable[[Tensor], Tensor],
    chunk: int = CHUNK_POSITIONS,
    is_frozen: bool = False,
    nll_and_gradient: NllAndGradient = plain_nll,
) -> Tensor:
    """Returns the negative log likelihood of each target, in float32.

    Logits are computed `chunk` positions at a time, so that the largest tensor of the step is bounded. A
    frozen projection runs once: see `_FrozenNll`. Of another one, and in float16, logits are recomputed in
    the backward pass when there is more than one chunk. Where no gradient is asked for on a CPU, only a few
    logits at a time are in float32.

    Args:
        hidden: [num, hidden]
        targets: [num]
        project: Hidden states to logits.
        chunk: Positions per chunk.
        is_frozen: Whether nothing in `project` learns.
        nll_and_gradient: What turns logits into losses and gradients where it is frozen.

    Returns:
        [num]: -log p(target) at each position.
    """
    # In float16 small gradients are zero unless the scale of the loss is in them from the start.
    if is_frozen and hidden.requires_grad and torch.is_grad_enabled() and hidden.dtype != torch.float16:
        losses: Tensor = _FrozenNll.apply(hidden, targets, project, chunk, nll_and_gradient)  # type: ignore[no-untyped-call]
        return losses

    def chunk_nll(part: Tensor, part_targets: Tensor) -> Tensor:
        """Returns the losses of a chunk of positions."""
        logits = project(part)
        in_tiles = logits.device.type == "cpu" and not logits.requires_grad
        tiles = _tiles(logits, part_targets) if in_tiles else [(logits, part_targets)]
        return torch.cat([F.cross_entropy(tile.float(), wanted, reduction="none") for tile, wanted in tiles])

    if len(targets) <= chunk:
        return chunk_nll(hidden, targets)
    return torch.cat([
        checkpoint(chunk_nll, part, part_targets, use_reentrant=False)
        for part, part_targets in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ])  # fmt: skip


class _FrozenNll(torch.autograd.Function):
    """Losses with their gradients, found while the logits are there.

    The loss of a position depends on its hidden state alone, so its gradient is known up to a factor before
    the backward pass, which brings the factor: d(-log p) / d(logits) = p - onehot(target). No logits are kept
    or computed again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        project: Callable[[Tensor], Tensor],
        chunk: int,
        nll_and_gradient: NllAndGradient,
    ) -> Tensor:
        """Returns [num] losses; keeps [num, hidden] gradients of them."""
        parts = [
            _chunk_with_gradient(part.detach().requires_grad_(), part_targets, project, nll_and_gradient)
            for part, part_targets in zip(hidden.split(chunk), targets.split(chunk), strict=True)
        ]
        losses, gradients = (torch.cat(each) for each in zip(*parts, strict=True))
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, *factors: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradient of the hidden states, and none for the rest."""
        (gradients,) = ctx.saved_tensors
        return (gradients * factors[0][:, None]).to(gradients.dtype), None, None, None, None


def _chunk_with_gradient(
    hidden: Tensor,
    targets: Tensor,
    project: Callable[[Tensor], Tensor],
    nll_and_gradient: NllAndGradient,
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        logits = project(hidden)
    losses, error = nll_and_gradient(logits.detach(), targets)
    # No projection needs its logits again: they come from a product with the head, or with a number.
    (gradient,) = torch.autograd.grad(logits, hidden, error.to(logits.dtype))
    return losses, gradient
