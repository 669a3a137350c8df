"""The LightningDataModule: whole optimizer steps for training, padded batches for validation."""

from collections.abc import Iterable, Sequence
from functools import partial

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from loralab.data.collate import (
    PAD_MULTIPLE,
    MicroBatch,
    StepBatch,
    collate_step,
    make_step,
    pack_examples,
    pad_examples,
)
from loralab.data.cutting import MicroBatchSize, cut
from loralab.data.layout import Layout
from loralab.data.masking import Example
from loralab.data.mixing import mix
from loralab.data.plan import StepPlan
from loralab.data.prepare import PreparedData
from loralab.data.store import lengths_of


class StepDataset(torch.utils.data.Dataset[StepBatch]):
    """Item i is everything optimizer step i sees."""

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
        if self.layout.pack_length is not None:
            width = self.layout.pack_length
            chunks = cut([width] * len(units), self.micro_batch_size)
            packed = [pack_examples([units[at] for at in chunk], width, self.pad_id) for chunk in chunks]
            return make_step(packed, examples, step)
        if self.layout.is_grouped:
            # The largest first, so that a step that does not fit in memory fails at once.
            ordered = sorted(units, key=_padded_size, reverse=True)
            return make_step([pad_examples(unit, self.pad_id) for unit in ordered], examples, step)
        return collate_step(examples, step, self.micro_batch_size, self.pad_id)


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
        """Returns the validation examples in batches of similar length."""
        return eval_batches(self.data.val.examples, self.micro_batch_size, self.pad_id)


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


def eval_batches(examples: Sequence[Example], size: MicroBatchSize, pad_id: int) -> DataLoader[MicroBatch]:
    """Batches examples by length, the longest first, for a forward pass without gradients."""
    lengths = lengths_of(examples)
    by_length = np.argsort(-lengths, kind="stable")
    widths = (-(-lengths[by_length] // PAD_MULTIPLE) * PAD_MULTIPLE).tolist()
    return DataLoader(
        examples,  # type: ignore[arg-type]  # a sequence is a map-style dataset
        batch_sampler=[by_length[chunk].tolist() for chunk in cut(widths, size)],
        collate_fn=partial(pad_examples, pad_id=pad_id),
        # Its own generator: an iterator otherwise draws from the global one and shifts dropout.
        generator=torch.Generator(),
    )


def _padded_size(unit: Sequence[Example]) -> int:
    return len(unit) * max(len(example.input_ids) for example in unit)
