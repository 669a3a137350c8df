"""Supervised fine-tuning: cross entropy on the tokens to learn."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loralab.data.masking import IGNORE_INDEX

CHUNK_POSITIONS = 512
"""Positions whose logits exist at once; at a vocabulary of 128k this is a quarter of a GiB in float32."""


def supervised_positions(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Picks the positions that predict a supervised token.

    Args:
        hidden: [batch, seq, hidden]
        labels: [batch, seq], `IGNORE_INDEX` where nothing is learned.

    Returns:
        Hidden states [num, hidden] and the token each must predict [num].
    """
    targets = labels[:, 1:]
    chosen = targets != IGNORE_INDEX
    return hidden[:, :-1][chosen], targets[chosen]


def cross_entropy_sum(
    hidden: Tensor, targets: Tensor, project: Callable[[Tensor], Tensor], chunk: int = CHUNK_POSITIONS
) -> Tensor:
    """Sums the negative log likelihood of the targets, in float32.

    Logits are computed `chunk` positions at a time and recomputed in the backward pass when there is
    more than one chunk, so that the largest tensor of the step is bounded.

    Args:
        hidden: [num, hidden]
        targets: [num]
        project: Hidden states to logits.
        chunk: Positions per chunk.

    Returns:
        A scalar: the sum over positions of -log p(target).
    """

    def chunk_sum(part: Tensor, part_targets: Tensor) -> Tensor:
        return F.cross_entropy(project(part).float(), part_targets, reduction="sum")

    if len(targets) <= chunk:
        return chunk_sum(hidden, targets)
    losses = [
        checkpoint(chunk_sum, part, part_targets, use_reentrant=False)
        for part, part_targets in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.stack(losses).sum()
