"""The LightningDataModule: whole optimizer steps for training, padded batches for validation."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from loralab.data.collate import (
    PAD_MULTIPLE,
    MicroBatch,
    StepBatch,
    make_step,
    pack_examples,
    pad_examples,
    padded_chunks,
    unlearned,
)
from loralab.data.cutting import MicroBatchSize, cut, deal
from loralab.data.layout import Layout
from loralab.data.masking import Example
from loralab.data.mixing import mix
from loralab.data.plan import StepPlan
from loralab.data.prepare import PreparedData
from loralab.data.store import lengths_of
from loralab.distributed.group import rank, world_size

EVAL_TOKENS = 2048
"""Tokens, padding included, that may go through the model at once where nothing is kept for gradients."""


class StepDataset(torch.utils.data.Dataset[StepBatch]):
    """Item i is what this process does of optimizer step i; what is counted is that of the whole step."""

    def __init__(
        self,
        examples: Sequence[Example],
        plan: StepPlan,
        layout: Layout,
        micro_batch_size: MicroBatchSize,
        pad_id: int,
    ) -> None:
        """Keeps the examples and the plan."""
        self.examples = examples
        self.plan = plan
        self.layout = layout
        self.micro_batch_size = micro_batch_size
        self.pad_id = pad_id

    def __getitem__(self, step: int) -> StepBatch:
        """Returns the micro-batches of a step."""
        epoch = step // self.plan.steps_per_epoch
        units = [
            [self.examples[int(number)] for number in self.layout.unit(epoch, unit)]
            for unit in self.plan.rows(step)
        ]
        examples = [example for unit in units for example in unit]
        shares = [self._cut([units[at] for at in share]) for share in self._deal(units)]
        batches = [self._fill(chunk) for chunk in shares[rank()] or [units[:1]]]
        if not shares[rank()]:
            batches = [unlearned(batch) for batch in batches]
        # As many in every process: layers that are split among them are gathered for each.
        missing = max(map(len, shares)) - len(batches)
        return make_step([*batches, *[unlearned(batches[-1])] * missing], examples, step)

    def _deal(self, units: list[list[Example]]) -> list[list[int]]:
        """Says which units of a step each process takes."""
        if world_size() == 1:
            return [list(range(len(units)))]
        return deal([self.layout.pack_length or _padded_size(unit) for unit in units], world_size())

    def _cut(self, units: list[list[Example]]) -> list[list[list[Example]]]:
        """Cuts units into micro-batches, the largest first: a step that does not fit fails at once."""
        if self.layout.pack_length is not None:
            widths = [self.layout.pack_length] * len(units)
        elif self.layout.is_grouped:
            return [[unit] for unit in sorted(units, key=_padded_size, reverse=True)]
        else:
            chunks = padded_chunks([unit[0] for unit in units], self.micro_batch_size)
            return [[[example] for example in chunk] for chunk in chunks]
        return [[units[at] for at in chunk] for chunk in cut(widths, self.micro_batch_size)]

    def _fill(self, units: list[list[Example]]) -> MicroBatch:
        """Makes a micro-batch of units."""
        if self.layout.pack_length is not None:
            return pack_examples(units, self.layout.pack_length, self.pad_id)
        return pad_examples([example for unit in units for example in unit], self.pad_id)


class DataModule(pl.LightningDataModule):
    """Feeds Lightning.

    Lightning's "epoch" is the stretch between two validations, so that a resumed run validates at the
    same steps as one that never stopped. Passes over the data are counted by the plan.
    """

    def __init__(
        self,
        data: PreparedData,
        plan: StepPlan,
        layout: Layout,
        micro_batch_size: MicroBatchSize,
        pad_id: int,
    ) -> None:
        """Keeps the prepared data; nothing is read or tokenized from here on."""
        super().__init__()
        self.data = data
        self.plan = plan
        self.layout = layout
        self.micro_batch_size = micro_batch_size
        self.pad_id = pad_id

    @property
    def next_step(self) -> int:
        """The optimizer step to feed next: the number that the module has finished."""
        return self.trainer.lightning_module.finished_steps if self.trainer else 0  # type: ignore[return-value]

    def train_dataloader(self) -> DataLoader[StepBatch]:
        """Returns the steps up to the next validation."""
        dataset = StepDataset(
            self.data.train.examples, self.plan, self.layout, self.micro_batch_size, self.pad_id
        )
        steps = range(self.next_step, self.plan.next_validation(self.next_step))
        return DataLoader(dataset, sampler=steps, batch_size=None, generator=torch.Generator())

    def val_dataloader(self) -> Iterable[MicroBatch]:
        """Returns the validation examples of this process in batches of similar length.

        They are larger than those of training where its rows are few or short.
        """
        size = replace(self.micro_batch_size, fill_tokens=EVAL_TOKENS)
        return eval_batches(self.data.val.examples, size, self.pad_id, (rank(), world_size()))


def make_layout(data: PreparedData, seed: int, pack_length: int | None, batch_tokens: int | None) -> Layout:
    """Lays out the training examples of an epoch: the mixture of the sources, packed or grouped.

    Args:
        data: The prepared examples.
        seed: Seed of the mixture and of what is packed together.
        pack_length: Tokens of a packed row; None does not pack.
        batch_tokens: Most tokens of a micro-batch; None counts examples.
    """
    lengths = lengths_of(data.train.examples)
    mixture = mix(data.shares, seed) if data.shares else np.arange(len(lengths))
    return Layout(lengths, mixture, seed, pack_length, batch_tokens)


def eval_batches(
    examples: Sequence[Example], size: MicroBatchSize, pad_id: int, share: tuple[int, int] = (0, 1)
) -> DataLoader[MicroBatch]:
    """Batches examples by length, the longest first, for a forward pass without gradients.

    Args:
        examples: What to batch.
        size: How much goes through at once.
        pad_id: Token to pad with.
        share: Number of this process and of all: each gets every so many batches, and where they do not come
            out even a batch that nothing is counted of.
    """
    dataset, (number, num_shares) = EvalDataset(examples, size, pad_id), share
    own = range(number, math.ceil(len(dataset) / num_shares) * num_shares, num_shares)
    # Its own generator: an iterator otherwise draws from the global one and shifts dropout.
    return DataLoader(dataset, sampler=own, batch_size=None, generator=torch.Generator())


class EvalDataset(torch.utils.data.Dataset[MicroBatch]):
    """Item i is the batch of the i-th longest examples; one beyond the last has nothing to learn."""

    def __init__(self, examples: Sequence[Example], size: MicroBatchSize, pad_id: int) -> None:
        """Cuts the examples into batches."""
        lengths = lengths_of(examples)
        by_length = np.argsort(-lengths, kind="stable")
        widths = (-(-lengths[by_length] // PAD_MULTIPLE) * PAD_MULTIPLE).tolist()
        self.examples, self.pad_id = examples, pad_id
        self.chunks = [by_length[chunk].tolist() for chunk in cut(widths, size)]

    def __len__(self) -> int:
        """Batches that hold examples."""
        return len(self.chunks)

    def __getitem__(self, number: int) -> MicroBatch:
        """Returns a batch."""
        chunk = self.chunks[min(number, len(self.chunks) - 1)]
        batch = pad_examples([self.examples[place] for place in chunk], self.pad_id)
        return batch if number < len(self.chunks) else unlearned(batch)


def _padded_size(unit: Sequence[Example]) -> int:
    return len(unit) * max(len(example.input_ids) for example in unit)
