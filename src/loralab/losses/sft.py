"""Supervised fine-tuning: cross entropy on the tokens to learn."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loralab.data.masking import IGNORE_INDEX

CHUNK_POSITIONS = 512
"""Positions whose logits exist at once; at a vocabulary of 128k this is a quarter of a GiB in float32."""


def supervised_positions(labels: Tensor) -> Tensor:
    """Finds the tokens that are predicted and learned.

    Args:
        labels: [batch, seq], `IGNORE_INDEX` where nothing is learned.

    Returns:
        A mask [batch, seq - 1] over the tokens after the first; each is predicted at the place before it.
    """
    return labels[:, 1:] != IGNORE_INDEX


def token_nll(
    hidden: Tensor, targets: Tensor, project: Callable[[Tensor], Tensor], chunk: int = CHUNK_POSITIONS
) -> Tensor:
    """Returns the negative log likelihood of each target, in float32.

    Logits are computed `chunk` positions at a time and recomputed in the backward pass when there is
    more than one chunk, so that the largest tensor of the step is bounded.

    Args:
        hidden: [num, hidden]
        targets: [num]
        project: Hidden states to logits.
        chunk: Positions per chunk.

    Returns:
        [num]: -log p(target) at each position.
    """

    def chunk_nll(part: Tensor, part_targets: Tensor) -> Tensor:
        return F.cross_entropy(project(part).float(), part_targets, reduction="none")

    if len(targets) <= chunk:
        return chunk_nll(hidden, targets)
    return torch.cat([
        checkpoint(chunk_nll, part, part_targets, use_reentrant=False)
        for part, part_targets in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ])  # fmt: skip
