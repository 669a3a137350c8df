"""The LightningDataModule: whole optimizer steps for training, padded batches for validation."""

from collections.abc import Iterable

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from loralab.data.collate import MicroBatch, StepBatch, collate_step, pad_examples
from loralab.data.masking import Example
from loralab.data.plan import StepPlan
from loralab.data.prepare import PreparedData


class StepDataset(torch.utils.data.Dataset[StepBatch]):
    """Item i is everything optimizer step i sees."""

    def __init__(self, examples: list[Example], plan: StepPlan, micro_batch_size: int, pad_id: int) -> None:
        """Keeps the examples and the plan."""
        self.examples = examples
        self.plan = plan
        self.micro_batch_size = micro_batch_size
        self.pad_id = pad_id

    def __getitem__(self, step: int) -> StepBatch:
        """Returns the micro-batches of a step."""
        examples = [self.examples[row] for row in self.plan.rows(step)]
        return collate_step(examples, step, self.micro_batch_size, self.pad_id)


class DataModule(pl.LightningDataModule):
    """Feeds Lightning.

    Lightning's "epoch" is the stretch between two validations, so that a resumed run validates at the
    same steps as one that never stopped. Passes over the data are counted by the plan.
    """

    def __init__(self, data: PreparedData, plan: StepPlan, micro_batch_size: int, pad_id: int) -> None:
        """Keeps the prepared data; nothing is read or tokenized from here on."""
        super().__init__()
        self.data = data
        self.plan = plan
        self.micro_batch_size = micro_batch_size
        self.pad_id = pad_id

    @property
    def next_step(self) -> int:
        """The optimizer step to feed next: the number that the module has finished."""
        return self.trainer.lightning_module.finished_steps if self.trainer else 0  # type: ignore[return-value]

    def train_dataloader(self) -> DataLoader[StepBatch]:
        """Returns the steps up to the next validation."""
        dataset = StepDataset(self.data.train.examples, self.plan, self.micro_batch_size, self.pad_id)
        steps = range(self.next_step, self.plan.next_validation(self.next_step))
        return DataLoader(dataset, sampler=steps, batch_size=None, generator=torch.Generator())

    def val_dataloader(self) -> Iterable[MicroBatch]:
        """Returns the validation examples in batches of similar length."""
        return eval_batches(self.data.val.examples, self.micro_batch_size, self.pad_id)


def eval_batches(examples: list[Example], batch_size: int, pad_id: int) -> DataLoader[MicroBatch]:
    """Batches examples by length for a forward pass without gradients."""
    ordered = sorted(examples, key=lambda example: len(example.input_ids))
    return DataLoader(
        ordered,  # type: ignore[arg-type]  # a list is a map-style dataset
        batch_size=batch_size,
        collate_fn=lambda chosen: pad_examples(chosen, pad_id),
        # Its own generator: an iterator otherwise draws from the global one and shifts dropout.
        generator=torch.Generator(),
    )
