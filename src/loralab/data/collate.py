"""From examples to padded tensors."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from loralab.data.masking import IGNORE_INDEX, Example

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


class StepBatch(NamedTuple):
    """Everything one optimizer step needs; its supervised tokens are counted before the first backward."""

    micro_batches: list[MicroBatch]
    step: int
    """The optimizer step this batch belongs to, from 0."""
    supervised_tokens: int
    """Tokens that the loss of the whole step is averaged over."""
    tokens: int
    """Tokens without padding."""


def pad_examples(examples: Sequence[Example], pad_id: int) -> MicroBatch:
    """Pads examples on the right to the longest of them, rounded up to a multiple of `PAD_MULTIPLE`."""
    longest = max(len(example.input_ids) for example in examples)
    shape = (len(examples), math.ceil(longest / PAD_MULTIPLE) * PAD_MULTIPLE)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORE_INDEX, dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        input_ids[row, :length] = torch.tensor(example.input_ids)
        attention_mask[row, :length] = 1
        labels[row, :length] = torch.tensor(example.labels)
    return MicroBatch(input_ids, attention_mask, labels)


def collate_step(examples: Sequence[Example], step: int, micro_batch_size: int, pad_id: int) -> StepBatch:
    """Cuts a step's examples into micro-batches of similar length, the longest first.

    Sorting within a step saves padding and changes nothing else, because the loss is a sum over the
    step. The longest first lets a run that does not fit in memory fail at once.
    """
    ordered = sorted(examples, key=lambda example: len(example.input_ids), reverse=True)
    chunks = [ordered[at : at + micro_batch_size] for at in range(0, len(ordered), micro_batch_size)]
    return StepBatch(
        micro_batches=[pad_examples(chunk, pad_id) for chunk in chunks],
        step=step,
        supervised_tokens=sum(example.num_supervised for example in examples),
        tokens=sum(len(example.input_ids) for example in examples),
    )
