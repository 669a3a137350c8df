"""The micro-batch that takes the most memory is found before anything loads."""

import dataclasses

import numpy as np
import pytest

from loralab.config.data import DataConfig
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.data.cutting import MicroBatchSize
from loralab.data.layout import Layout
from loralab.training.memory_plan import largest_batch, rows_per_step

LENGTHS = np.array([5, 40, 17, 3, 30, 22])
SUPERVISED = np.array([1, 10, 4, 2, 20, 8])


def layout(**how: int) -> Layout:
    return Layout(LENGTHS, np.arange(len(LENGTHS)), 0, **how)


def test_without_packing_it_is_that_of_the_longest_examples() -> None:
    # 40 is padded to 48; with it goes 30: 10 + 20 tokens to learn.
    batch = largest_batch(layout(), SUPERVISED, MicroBatchSize(rows=2))
    assert (batch.rows, batch.width, batch.num_supervised, batch.documents) == (2, 48, 30, None)


def test_a_token_budget_says_how_many_rows_of_the_widest_fit() -> None:
    batch = largest_batch(layout(), SUPERVISED, MicroBatchSize(tokens=150))
    assert (batch.rows, batch.width) == (3, 48)


def test_a_packed_batch_lists_its_documents_and_the_padding() -> None:
    packed = layout(pack_length=48)
    batch = largest_batch(packed, SUPERVISED, MicroBatchSize(rows=2))
    rows = [packed.unit(0, 0), packed.unit(0, 1)]
    assert (batch.rows, batch.width) == (2, 48)
    assert batch.documents is not None
    assert sum(batch.documents) == 2 * 48
    assert batch.num_supervised == sum(int(SUPERVISED[row].sum()) for row in rows)


def test_no_batch_has_more_rows_than_there_are() -> None:
    assert largest_batch(layout(), SUPERVISED, MicroBatchSize(rows=100)).rows == len(LENGTHS)


def test_a_group_of_like_length_is_a_batch_already() -> None:
    grouped = layout(batch_tokens=64)
    batch = largest_batch(grouped, SUPERVISED, MicroBatchSize(rows=1))
    sizes = [
        len(grouped.unit(0, number)) * (-(-LENGTHS[grouped.unit(0, number)].max() // 16) * 16)
        for number in range(grouped.num_units)
    ]
    assert batch.rows * batch.width == max(sizes)


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"batch_size": 4, "accumulation": 3}, 12),
        ({"batch_size": 4, "step_examples": 10}, 10),
        ({"batch_size": "auto"}, 16),
        ({"batch_size": "auto", "step_examples": 7}, 7),
    ],
)
def test_what_a_step_sees_does_not_depend_on_how_it_is_cut(trainer: dict[str, object], expected: int) -> None:
    config = dataclasses.replace(TrainConfig(data=DataConfig()), trainer=TrainerConfig(**trainer))  # type: ignore[arg-type]
    assert rows_per_step(config, layout()) == expected


def test_groups_are_counted_by_accumulation() -> None:
    config = TrainConfig(trainer=TrainerConfig(batch_tokens=64, accumulation=3))
    assert rows_per_step(config, layout(batch_tokens=64)) == 3
