"""What all documents of a packed row begin with, such as a system prompt, computed once.

A token depends on those before it in its document alone, so documents that begin alike have the same hidden
states as far as they are alike. The beginning goes through the model once, with the rest of every document
behind it; attention shows it to each. Gradients of all documents add up in it, as they would in its copies.
"""

from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from loralab.data.collate import MicroBatch, filled_width


class Shortened(NamedTuple):
    """Packed documents whose common beginning stands once, ahead of what is left of each."""

    input_ids: Tensor
    """[1, short seq]"""
    position_ids: Tensor
    """[1, short seq], of each token in its document."""
    bounds: tuple[int, ...]
    """0, the end of the common beginning, and where the rest of each document ends."""
    places: Tensor
    """[batch, seq], where the token at each place of the rows stands now."""


class DocumentCopies(NamedTuple):
    """How to lay documents out whole again, each with a copy of their common beginning."""

    bounds: tuple[int, ...]
    """Where the whole documents begin, and the end."""
    places: Tensor
    """[whole tokens], where each of them stands among those that share their beginning."""
    kept: Tensor
    """[short tokens], where each stands among the whole documents; the beginning in the first."""


def without_repeats(batch: MicroBatch) -> Shortened | None:
    """Leaves all copies but one of the common beginning out; None where that saves nothing.

    Nothing waits for the device: what documents share is known on the host.

    Args:
        batch: Packed rows, [batch, seq].
    """
    shared, bounds = batch.shared_prefix, batch.bounds
    if not shared or bounds is None or batch.position_ids is None:
        return None
    documents = list(pairwise(bounds))
    # What is left of a row is a document too, which may be shorter; nothing is learned there.
    rests = [max(0, end - start - shared) for start, end in documents]
    ends = list(accumulate([shared, *rests]))
    width = filled_width(ends[-1])
    saves_nothing = width >= bounds[-1] == filled_width(bounds[-1])
    if saves_nothing or not any(rests):
        return None
    behind = [torch.arange(end - rest, end) for (_, end), rest in zip(documents, rests, strict=True)]
    places = [
        part
        for (start, end), rest, last in zip(documents, rests, ends[1:], strict=True)
        for part in (torch.arange(end - start - rest), torch.arange(last - rest, last))
    ]
    device = batch.input_ids.device

    def shortened(rows: Tensor) -> Tensor:
        """Returns [1, short seq] of [batch, seq]."""
        return torch.nn.functional.pad(rows.flatten()[first], (0, width - ends[-1]))[None]

    first = torch.cat([torch.arange(shared), *behind]).to(device, non_blocking=True)
    return Shortened(
        shortened(batch.input_ids),
        shortened(batch.position_ids),
        tuple(dict.fromkeys([0, *ends, width])),
        torch.cat(places).view_as(batch.input_ids).to(device, non_blocking=True),
    )


def copies_of_documents(bounds: tuple[int, ...], device: torch.device) -> DocumentCopies:
    """Says how documents behind a common beginning are laid out whole.

    Args:
        bounds: Those of `Shortened`.
        device: Where the places are needed.
    """
    shared, rests = bounds[1], list(pairwise(bounds[1:]))
    whole = list(accumulate((shared + end - start for start, end in rests), initial=0))
    places = [part for start, end in rests for part in (torch.arange(shared), torch.arange(start, end))]
    behind = [torch.arange(start + shared, end) for start, end in pairwise(whole)]
    indices = (torch.cat(places), torch.cat([torch.arange(shared), *behind]))
    return DocumentCopies(tuple(whole), *(index.to(device, non_blocking=True) for index in indices))
