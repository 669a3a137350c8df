"""From examples to tensors: padded, or packed into rows."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor

from loralab.data.cutting import MicroBatchSize, cut
from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.packing import document_bounds, document_positions

LEAST_SAVED = 0.03
"""Share of the tokens that must be copies of others before these are left out."""
PAD_MULTIPLE = 16
"""Few distinct widths: each new one costs a kernel set-up and memory that the CPU library keeps."""


class MicroBatch(NamedTuple):
    """Examples that go through the model at once, padded on the right."""

    input_ids: Tensor
    """[batch, seq]"""
    attention_mask: Tensor
    """[batch, seq], 1 for a real token."""
    labels: Tensor
    """[batch, seq], `IGNORE_INDEX` where nothing is learned."""
    weights: Tensor | None = None
    """[batch, seq], weight of each token in the loss; None where all are 1."""
    sources: Tensor | None = None
    """[batch, seq], number of each token's source; None where there is one."""
    position_ids: Tensor | None = None
    """[batch, seq], restarting at each document of a packed row; None where rows are not packed."""
    bounds: tuple[int, ...] | None = None
    """Where documents begin in packed rows laid end to end, and the end."""
    lengths: tuple[int, ...] | None = None
    """Tokens of each padded row; None where rows are packed."""
    shared_prefix: int = 0
    """Tokens that all examples begin with (`without_repeats`); 0 where that is not worth it."""
    is_counted: bool = True
    """Whether its tokens count; not those of a batch that a process runs beside the others' last ones."""

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss will see."""
        return int((self.labels[:, 1:] != IGNORE_INDEX).sum())


class StepBatch(NamedTuple):
    """Everything one optimizer step needs; what it is averaged over is known before the first backward."""

    micro_batches: list[MicroBatch]
    step: int
    """The optimizer step this batch belongs to, from 0."""
    loss_weight: float
    """Sum of the weights of the supervised tokens, which the loss of the whole step is divided by."""
    supervised_tokens: int
    """Tokens that are learned."""
    tokens: int
    """Tokens without padding."""
    rows: tuple[str, ...] = ()
    """File and place of each example, in the order of the plan."""


def pad_examples(examples: Sequence[Example], pad_id: int) -> MicroBatch:
    """Pads examples on the right to the longest of them, rounded up to a multiple of `PAD_MULTIPLE`."""
    width = max(map(padded_width, examples))
    return fill_rows([[example] for example in examples], width, pad_id)


def padded_width(example: Example) -> int:
    """Tokens of a row that an example is the longest of."""
    return math.ceil(len(example.input_ids) / PAD_MULTIPLE) * PAD_MULTIPLE


def pack_examples(rows: Sequence[Sequence[Example]], width: int, pad_id: int) -> MicroBatch:
    """Lays several examples behind each other in each row; attention keeps them apart by their `bounds`.

    The first token of each document is never a target, so that nothing is predicted across a border.
    """
    batch = fill_rows(rows, width, pad_id)
    bounds = document_bounds([[len(example.input_ids) for example in row] for row in rows], width)
    batch.labels.view(-1)[torch.tensor(bounds[:-1])] = IGNORE_INDEX
    positions = torch.from_numpy(document_positions(bounds)).view_as(batch.input_ids)
    return batch._replace(position_ids=positions, bounds=bounds, lengths=None)


def fill_rows(rows: Sequence[Sequence[Example]], width: int, pad_id: int) -> MicroBatch:
    """Writes the examples of each row one after another and pads each row to `width` tokens."""
    shape = (len(rows), width)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORE_INDEX, dtype=torch.long)
    listed = [example for examples in rows for example in examples]
    weighted = any(example.weights is not None for example in listed)
    weights = torch.ones(shape) if weighted else None
    # Sources are written whenever any is not the first: a step with one source tells the others' apart.
    sources = torch.zeros(shape, dtype=torch.long) if any(example.source for example in listed) else None
    for row, examples in enumerate(rows):
        at = 0
        for example in examples:
            end = at + len(example.input_ids)
            input_ids[row, at:end] = torch.tensor(example.input_ids)
            attention_mask[row, at:end] = 1
            labels[row, at:end] = torch.tensor(example.labels)
            if weights is not None and example.weights is not None:
                weights[row, at:end] = torch.tensor(example.weights)
            if sources is not None:
                sources[row, at:end] = example.source
            at = end
    lengths = tuple(sum(len(example.input_ids) for example in examples) for examples in rows)
    shared = worth_sharing(common_prefix(listed), [len(example.input_ids) for example in listed])
    return MicroBatch(
        input_ids, attention_mask, labels, weights, sources, lengths=lengths, shared_prefix=shared
    )


def common_prefix(examples: Sequence[Example]) -> int:
    """Returns how many tokens several examples all begin with, such as those of a system prompt."""
    if len(examples) <= 1:
        return 0
    # Where the first and the last in the order of their tokens agree, all between them do.
    ids = [example.input_ids for example in examples]
    first, last = min(ids), max(ids)
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(last)))


def worth_sharing(shared: int, lengths: Sequence[int]) -> int:
    """Returns the length of a common beginning, or 0 where its copies are too few of all tokens.

    Args:
        shared: Tokens that all documents begin with.
        lengths: Tokens of each document.
    """
    return shared if shared * (len(lengths) - 1) >= LEAST_SAVED * sum(lengths) else 0


def without_padding(batch: MicroBatch) -> MicroBatch:
    """Lays padded rows end to end in one packed row, so that no time goes into their padding.

    Nothing waits for the device: where rows end is known on the host.

    Args:
        batch: Rows padded on the right; packed ones come back as they are.
    """
    return batch if batch.lengths is None else take_documents(batch, documents_of(batch))


def documents_of(batch: MicroBatch) -> list[tuple[int, int]]:
    """Returns where each document begins in the rows laid end to end, and how many tokens it has.

    Padding is left out; finding it in packed rows waits for the device.
    """
    if batch.bounds is not None:
        is_real = batch.attention_mask.flatten()[list(batch.bounds[:-1])].tolist()
        bounds = zip(pairwise(batch.bounds), is_real, strict=True)
        return [(start, end - start) for (start, end), real in bounds if real]
    width = batch.input_ids.shape[1]
    return [(row * width, length) for row, length in enumerate(batch.lengths or ())]


def take_documents(batch: MicroBatch, documents: Sequence[tuple[int, int]]) -> MicroBatch:
    """Lays some documents of a micro-batch end to end in one packed row.

    Args:
        batch: Rows, [batch, seq].
        documents: Some of `documents_of` it.
    """
    lengths = [length for _, length in documents]
    total, shared = sum(lengths), worth_sharing(batch.shared_prefix, lengths)
    # Where the common beginning will be left out, that changes the number of tokens once more.
    bounds = document_bounds([lengths], total if shared else filled_width(total))
    spans = [torch.arange(start, start + length) for start, length in documents]
    places = torch.cat(spans).to(batch.input_ids.device, non_blocking=True)

    def laid(rows: Tensor | None, filler: int) -> Tensor | None:
        """Returns [1, tokens] of [batch, seq]."""
        if rows is None:
            return None
        return torch.nn.functional.pad(rows.flatten()[places], (0, bounds[-1] - total), value=filler)[None]

    positions = torch.from_numpy(document_positions(bounds))[None].to(places.device, non_blocking=True)
    # Nothing is predicted across a border.
    labels = cast(Tensor, laid(batch.labels, IGNORE_INDEX)).masked_fill(positions == 0, IGNORE_INDEX)
    return MicroBatch(
        cast(Tensor, laid(batch.input_ids, 0)), cast(Tensor, laid(batch.attention_mask, 0)), labels,
        laid(batch.weights, 0), laid(batch.sources, 0), positions, bounds, is_counted=batch.is_counted,
        shared_prefix=shared,
    )  # fmt: skip


def filled_width(tokens: int) -> int:
    """Returns the width that rows laid end to end are filled up to: few distinct ones, as of single rows."""
    multiple = PAD_MULTIPLE if tokens <= PAD_MULTIPLE**2 else 4 * PAD_MULTIPLE
    return math.ceil(tokens / multiple) * multiple


def make_step(micro_batches: list[MicroBatch], examples: Sequence[Example], step: int) -> StepBatch:
    """Adds to the micro-batches of a step what its loss is divided by and what is counted."""
    return StepBatch(
        micro_batches=micro_batches,
        step=step,
        loss_weight=sum(example.loss_weight for example in examples),
        supervised_tokens=sum(example.num_supervised for example in examples),
        tokens=sum(len(example.input_ids) for example in examples),
        rows=tuple(f"{each.conversation.source} {each.conversation.place}" for each in examples),
    )


def unlearned(batch: MicroBatch) -> MicroBatch:
    """Returns a micro-batch that goes through the model and is counted nowhere."""
    return batch._replace(labels=torch.full_like(batch.labels, IGNORE_INDEX), is_counted=False)


def padded_chunks(examples: Sequence[Example], size: MicroBatchSize) -> list[list[Example]]:
    """Cuts examples into micro-batches of similar length, the longest first.

    Sorting within a step saves padding and changes nothing else, because the loss is a sum over the
    step. The longest first lets a run that does not fit in memory fail at once.
    """
    ordered = sorted(examples, key=lambda example: len(example.input_ids), reverse=True)
    chunks = cut([padded_width(example) for example in ordered], size)
    return [[ordered[place] for place in chunk] for chunk in chunks]


def collate_step(examples: Sequence[Example], step: int, size: MicroBatchSize, pad_id: int) -> StepBatch:
    """Pads the examples of a step in micro-batches of similar length."""
    return make_step([pad_examples(each, pad_id) for each in padded_chunks(examples, size)], examples, step)
