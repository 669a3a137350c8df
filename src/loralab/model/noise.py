"""NEFTune: noise on the embeddings of what is trained on."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from loralab.data.collate import MicroBatch


@contextmanager
def noisy_embeddings(model: PreTrainedModel, batch: MicroBatch, alpha: float) -> Iterator[None]:
    """Adds noise to the embeddings of a micro-batch while the context lasts; none where alpha is 0.

    Uniform between -1 and 1, times alpha / sqrt(L d) for examples of L tokens and embeddings of d numbers
    (arXiv:2310.05914, algorithm 1). It comes from the device's own random generator, whose state a checkpoint
    keeps.

    Args:
        model: The causal language model, adapters in place.
        batch: What it is about to see.
        alpha: `trainer.neftune_alpha`.
    """
    if alpha == 0:
        yield
        return
    lengths = example_lengths(batch)

    def add_noise(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Leaves padding as it is."""
        size = alpha * (lengths * output.shape[-1]).rsqrt() * batch.attention_mask
        noise = torch.empty_like(output).uniform_(-1, 1)
        return output + noise * size.unsqueeze(-1).to(output.dtype)

    handle = model.get_input_embeddings().register_forward_hook(add_noise)
    try:
        yield
    finally:
        handle.remove()


def example_lengths(batch: MicroBatch) -> Tensor:
    """Returns [batch, seq] in float32: the tokens of the example that each place belongs to, at least 1.

    Padding does not count; in packed rows each document is an example.
    """
    mask = batch.attention_mask
    if batch.bounds is None:
        return mask.sum(dim=1, keepdim=True).clamp(min=1).expand_as(mask).float()
    lengths = torch.tensor([end - start for start, end in pairwise(batch.bounds)], device=mask.device)
    return lengths.repeat_interleave(lengths).view_as(mask).float()
