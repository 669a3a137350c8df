"""What Lightning is fed: whole steps, the same ones after a stop."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.data import datamodule as module
from loralab.data.collate import MicroBatch, StepBatch
from loralab.data.cutting import MicroBatchSize
from loralab.data.datamodule import DataModule, eval_batches, make_layout
from loralab.data.masking import IGNORE_INDEX
from loralab.data.plan import StepPlan
from loralab.data.prepare import PreparedData, prepare_data

MICRO_BATCH = 2
STEPS = 17
"""Of 36 rows in steps of 5: two epochs of 8 steps, each with a short last step, and one step more."""


@pytest.fixture(scope="module")
def data(tokenizer: PreTrainedTokenizerBase, rows_file: Path) -> PreparedData:
    return prepare_data(DataConfig(name="file", path=str(rows_file)), tokenizer, seed=0)


@pytest.fixture
def plan(data: PreparedData) -> StepPlan:
    return StepPlan(len(data.train.examples), 5, 1.0, STEPS, val_every=4, seed=3)


def datamodule(data: PreparedData, plan: StepPlan, finished_steps: int) -> DataModule:
    """A datamodule whose trainer has finished so many steps."""
    layout = make_layout(data, 3, None, None)
    made = DataModule(data, plan, layout, MicroBatchSize(rows=MICRO_BATCH), pad_id=0)
    made.trainer = SimpleNamespace(lightning_module=SimpleNamespace(finished_steps=finished_steps))  # type: ignore[assignment]
    return made


def walk(data: PreparedData, plan: StepPlan, start: int, stop: int) -> list[StepBatch]:
    """Trains from `start` finished steps to `stop`, with a new loader after each validation."""
    batches: list[StepBatch] = []
    while start + len(batches) < stop:
        for batch in datamodule(data, plan, start + len(batches)).train_dataloader():
            batches.append(batch)
            if start + len(batches) == stop:
                break
    return batches


def flatten(batches: list[StepBatch]) -> list[object]:
    return [
        (
            batch.step,
            batch.supervised_tokens,
            batch.tokens,
            [[t.tolist() for t in m[:3]] for m in batch.micro_batches],
        )
        for batch in batches
    ]


@pytest.mark.parametrize("stop", [1, 4, 5, 8, 11, 16])
def test_run_that_stops_sees_the_batches_of_one_that_does_not(
    data: PreparedData, plan: StepPlan, stop: int
) -> None:
    whole = walk(data, plan, 0, STEPS)
    assert [batch.step for batch in whole] == list(range(STEPS))
    resumed = walk(data, plan, 0, stop) + walk(data, plan, stop, STEPS)
    assert flatten(resumed) == flatten(whole)


@pytest.mark.parametrize(
    ("finished", "expected"),
    [(0, [0, 1, 2, 3]), (4, [4, 5, 6, 7]), (6, [6, 7]), (15, [15]), (16, [16]), (17, [])],
)
def test_train_loader_stops_at_the_next_validation(
    data: PreparedData, plan: StepPlan, finished: int, expected: list[int]
) -> None:
    loader = datamodule(data, plan, finished).train_dataloader()
    assert [batch.step for batch in loader] == expected
    assert len(loader) == len(expected)


def test_step_feeds_the_rows_of_the_plan(data: PreparedData, plan: StepPlan) -> None:
    for step, batch in enumerate(walk(data, plan, 0, STEPS)):
        fed = [
            row[: int(mask.sum())].tolist()
            for micro in batch.micro_batches
            for row, mask in zip(micro.input_ids, micro.attention_mask, strict=True)
        ]
        expected = [data.train.examples[row].input_ids for row in plan.rows(step)]
        assert sorted(fed) == sorted(expected)
        # 36 rows in steps of 5: the eighth step of an epoch has one row.
        is_short = step % 8 == 7
        assert [len(micro.input_ids) for micro in batch.micro_batches] == ([1] if is_short else [2, 2, 1])


def test_without_a_trainer_the_first_step_is_next(data: PreparedData, plan: StepPlan) -> None:
    layout = make_layout(data, 3, None, None)
    assert DataModule(data, plan, layout, MicroBatchSize(rows=MICRO_BATCH), pad_id=0).next_step == 0


def test_validation_sees_every_example_once_in_order_of_length(data: PreparedData) -> None:
    examples = data.train.examples[:7]
    batches = list(eval_batches(examples, MicroBatchSize(rows=3), pad_id=0))
    assert [len(batch.input_ids) for batch in batches] == [3, 3, 1]
    lengths = [int(mask.sum()) for batch in batches for mask in batch.attention_mask]
    assert lengths == sorted((len(example.input_ids) for example in examples), reverse=True)
    seen = [
        row[: int(mask.sum())].tolist()
        for batch in batches
        for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]
    assert sorted(seen) == sorted(example.input_ids for example in examples)


def test_validation_loader_feeds_the_validation_split(data: PreparedData, plan: StepPlan) -> None:
    batches = list(datamodule(data, plan, 0).val_dataloader())
    seen = [row for batch in batches for row in batch.labels.tolist()]
    assert len(seen) == len(data.val.examples) == 2
    learned = sorted([label for label in row if label != -100] for row in seen)
    assert learned == sorted([label for label in e.labels if label != -100] for e in data.val.examples)


def test_validation_takes_more_rows_than_training_where_they_are_short(
    data: PreparedData, plan: StepPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = replace(data, val=data.train)
    widths = [
        mask.shape[1] for mask in (b.attention_mask for b in datamodule(longer, plan, 0).val_dataloader())
    ]
    assert len(widths) == 1
    monkeypatch.setattr(module, "EVAL_TOKENS", 5 * widths[0])
    rows = [len(batch.input_ids) for batch in datamodule(longer, plan, 0).val_dataloader()]
    assert rows[0] == 5 and sum(rows) == 36
    monkeypatch.setattr(module, "EVAL_TOKENS", widths[0])
    assert len(next(iter(datamodule(longer, plan, 0).val_dataloader())).input_ids) == MICRO_BATCH


def test_loaders_leave_the_global_random_state_alone(data: PreparedData, plan: StepPlan) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    module = datamodule(data, plan, 0)
    assert len(list(module.train_dataloader())) == 4
    assert torch.equal(torch.get_rng_state(), before)
    assert len(list(module.val_dataloader())) == 1
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [(128, None), (None, 96)])
def test_packed_and_grouped_steps_feed_each_example_once_an_epoch(
    data: PreparedData, options: tuple[int | None, int | None]
) -> None:
    layout = make_layout(data, 3, *options)
    plan = StepPlan(layout.num_units, 2, 2.0, None, val_every=100, seed=3)
    made = DataModule(data, plan, layout, MicroBatchSize(rows=MICRO_BATCH), pad_id=0)
    made.trainer = SimpleNamespace(lightning_module=SimpleNamespace(finished_steps=0))  # type: ignore[assignment]
    batches = list(made.train_dataloader())
    assert len(batches) == 2 * plan.steps_per_epoch
    for epoch in (0, 1):
        part = batches[epoch * plan.steps_per_epoch : (epoch + 1) * plan.steps_per_epoch]
        assert sum(batch.tokens for batch in part) == int(layout.lengths.sum())
        supervised = sum(example.num_supervised for example in data.train.examples)
        assert sum(batch.supervised_tokens for batch in part) == supervised
        learned = sum(micro.num_supervised for batch in part for micro in batch.micro_batches)
        assert learned == supervised
    for micro in (micro for batch in batches for micro in batch.micro_batches):
        assert micro.input_ids.numel() <= (128 * MICRO_BATCH if options[0] else 96)


def as_process(monkeypatch: pytest.MonkeyPatch, number: int, count: int) -> None:
    """Lets this process be one of several."""
    monkeypatch.setattr(module, "rank", lambda: number)
    monkeypatch.setattr(module, "world_size", lambda: count)


def learned_rows(batches: list[MicroBatch]) -> list[tuple[int, ...]]:
    """The tokens of each row that has something to learn, without padding."""
    return sorted(
        tuple(ids[mask == 1].tolist())
        for batch in batches
        for ids, mask, labels in zip(batch.input_ids, batch.attention_mask, batch.labels, strict=True)
        if (labels != IGNORE_INDEX).any()
    )


@pytest.mark.parametrize("layout", [(None, None), (64, None), (None, 96)], ids=["rows", "packed", "grouped"])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_processes_divide_a_step_and_count_all_of_it(
    data: PreparedData, monkeypatch: pytest.MonkeyPatch, layout: tuple[int | None, int | None], count: int
) -> None:
    made = make_layout(data, 3, *layout)
    plan = StepPlan(made.num_units, 5, 1.0, None, val_every=4, seed=3)
    dataset = module.StepDataset(data.train.examples, plan, made, MicroBatchSize(rows=MICRO_BATCH), 0)
    for step in range(plan.steps_per_epoch):
        whole, parts = dataset[step], []
        for number in range(count):
            as_process(monkeypatch, number, count)
            parts.append(dataset[step])
        monkeypatch.undo()
        together = [batch for part in parts for batch in part.micro_batches]
        assert learned_rows(together) == learned_rows(whole.micro_batches)
        # A layer that is split among processes is put together for each micro-batch of all of them.
        assert len({len(part.micro_batches) for part in parts}) == 1
        for part in parts:
            assert part[1:] == whole[1:]


@pytest.mark.parametrize("count", [2, 5])
def test_processes_divide_the_validation(
    data: PreparedData, plan: StepPlan, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    whole = list(datamodule(data, plan, 0).val_dataloader())
    parts = []
    for number in range(count):
        as_process(monkeypatch, number, count)
        parts.append(list(datamodule(data, plan, 0).val_dataloader()))
    assert {len(part) for part in parts} == {-(-len(whole) // count)}
    assert learned_rows([batch for part in parts for batch in part]) == learned_rows(whole)
