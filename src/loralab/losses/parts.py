"""What an objective returns: the losses of single items, so that any mean can be taken of them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class LossParts(NamedTuple):
    """The losses of the items of a micro-batch: tokens, or pairs."""

    losses: Tensor
    """[num], float32"""
    weights: Tensor | None = None
    """[num], weight of each item; None where all are 1."""
    sources: Tensor | None = None
    """[num], number of each item's source; None where all come from the first."""

    def weighted(self) -> Tensor:
        """Returns the loss of each item times its weight: [num]."""
        return self.losses if self.weights is None else self.losses * self.weights


class SourceMeans(Metric):
    """The weighted mean loss, over all items and over those of each source.

    Where several processes count, `training_step` and validation add up what each of them has.
    """

    sums: Tensor
    weights: Tensor

    def __init__(self, num_sources: int) -> None:
        """Starts from nothing."""
        super().__init__(sync_on_compute=False)
        self.add_state("sums", torch.zeros(num_sources, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weights", torch.zeros(num_sources, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, parts: LossParts) -> None:
        """Adds the items of a micro-batch."""
        weighted = parts.weighted().detach().double()
        weights = torch.ones_like(weighted) if parts.weights is None else parts.weights.double()
        if parts.sources is None:
            self.sums[0] += weighted.sum()
            self.weights[0] += weights.sum()
        else:
            self.sums.index_add_(0, parts.sources, weighted)
            self.weights.index_add_(0, parts.sources, weights)

    def compute(self) -> Tensor:
        """Returns [1 + sources]: the mean over all items, then that of each source, NaN where it has none."""
        return torch.cat([(self.sums.sum() / self.weights.sum())[None], self.sums / self.weights])


def several(by_source: dict[str, Any]) -> dict[str, Any]:
    """Keeps figures of single sources where there is more than one source to tell apart."""
    return by_source if len(by_source) > 1 else {}
