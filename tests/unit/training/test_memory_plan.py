"""The micro-batch that takes the most memory is found before anything loads."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from loralab.config.data import DataConfig
from loralab.config.model import ModelConfig
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.config.speed import SpeedConfig
from loralab.data.cutting import MicroBatchSize
from loralab.data.layout import Layout
from loralab.training import memory_plan
from loralab.training.memory_plan import MemoryPlan, largest_batch, rows_at_once, rows_per_step

LENGTHS = np.array([5, 40, 17, 3, 30, 22])
SUPERVISED = np.array([1, 10, 4, 2, 20, 8])


def layout(**how: int) -> Layout:
    return Layout(LENGTHS, np.arange(len(LENGTHS)), 0, **how)


def test_without_packing_it_is_that_of_the_longest_examples() -> None:
    # 40 is padded to 48; with it goes 30: 10 + 20 tokens to learn.
    batch = largest_batch(layout(), SUPERVISED, MicroBatchSize(rows=2))
    assert (batch.rows, batch.width, batch.num_supervised, batch.documents) == (2, 48, 30, None)
    assert batch.lengths == (40, 30)


def test_a_token_budget_says_how_many_rows_of_the_widest_fit() -> None:
    batch = largest_batch(layout(), SUPERVISED, MicroBatchSize(tokens=150))
    assert (batch.rows, batch.width) == (3, 48)
    # Shorter rows elsewhere may fill the budget.
    assert batch.lengths == (48, 48, 48)


def test_a_packed_batch_lists_its_documents_and_the_padding() -> None:
    packed = layout(pack_length=48)
    batch = largest_batch(packed, SUPERVISED, MicroBatchSize(rows=2))
    # Rows of 40, 5, 3 and 30, 17 and 22 tokens: the two with the fewest documents, and the padding of each.
    assert (batch.rows, batch.width) == (2, 48)
    assert batch.documents == (22, 26, 30, 17, 1)
    # 10 + 1 + 2 and 20 + 4 tokens to learn, where the row of 22 has 8.
    assert batch.num_supervised == 13 + 24


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


@pytest.mark.parametrize(
    ("trainer", "how", "expected"),
    [
        ({"batch_size": 4}, {}, 4),
        ({"batch_size": 4, "step_examples": 2}, {}, 2),
        # Two processes take two and three of five.
        ({"batch_size": 4, "step_examples": 5, "devices": 2}, {}, 3),
        ({"batch_size": 40}, {}, len(LENGTHS)),
        ({"batch_size": 4, "batch_tokens": 64}, {"batch_tokens": 64}, 1),
        ({"batch_size": "auto"}, {}, 1),
    ],
)
def test_no_micro_batch_is_larger_than_what_a_process_takes_of_a_step(
    trainer: dict[str, Any], how: dict[str, int], expected: int
) -> None:
    assert rows_at_once(TrainConfig(trainer=TrainerConfig(**trainer)), layout(**how)) == expected


def test_groups_are_counted_by_accumulation() -> None:
    config = TrainConfig(trainer=TrainerConfig(batch_tokens=64, accumulation=3))
    assert rows_per_step(config, layout(batch_tokens=64)) == 3


def plan_of(tiny_model_dir: Path, **trainer: object) -> MemoryPlan:
    examples = [
        SimpleNamespace(num_supervised=int(number), input_ids=[1, 2, 3, place])
        for place, number in enumerate(SUPERVISED, start=4)
    ]
    data: Any = SimpleNamespace(train=SimpleNamespace(examples=examples))
    config = TrainConfig(model=ModelConfig(path=str(tiny_model_dir)), trainer=TrainerConfig(**trainer))  # type: ignore[arg-type]
    return MemoryPlan(config, data, (torch.device("cpu"), torch.float32), 0)


@pytest.mark.parametrize(
    ("trainer", "dropout", "shared"),
    [
        ({}, 0.0, 3),
        ({"speed": SpeedConfig(shared_prefix=False)}, 0.0, 0),
        # Copies of the same tokens are told apart by what is random.
        ({"neftune_alpha": 5.0}, 0.0, 0),
        ({}, 0.1, 0),
    ],
)
def test_what_all_examples_begin_with_counts_once(
    tiny_model_dir: Path, trainer: dict[str, object], dropout: float, shared: int
) -> None:
    plan = plan_of(tiny_model_dir, **trainer)
    plan.config.lora.dropout = dropout
    assert plan.request(MicroBatchSize(rows=2), layout()).shared_prefix == shared


@pytest.mark.parametrize(
    ("trainer", "dropout", "shared"),
    [
        ({}, 0.0, True),
        ({"speed": SpeedConfig(parallel_rows=False)}, 0.0, False),
        ({"neftune_alpha": 5.0}, 0.0, False),
        ({}, 0.1, False),
        ({"strategy": "fsdp", "devices": 2}, 0.0, False),
    ],
)
def test_rows_side_by_side_take_memory_at_once(
    tiny_model_dir: Path, trainer: dict[str, object], dropout: float, shared: bool
) -> None:
    plan = plan_of(tiny_model_dir, **trainer)
    plan.config.lora.dropout = dropout
    threads = plan.request(MicroBatchSize(rows=2), layout()).threads
    assert threads == (torch.get_num_threads() if shared else 1)


def test_what_is_free_is_read_before_the_weights_take_their_part(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([1000, 10])
    monkeypatch.setattr(memory_plan, "available_memory", lambda: next(free))
    plan = plan_of(tiny_model_dir)
    assert plan.available_bytes == plan.available_bytes == 1000 + plan.process_bytes
    assert plan_of(tiny_model_dir, memory_gib=0.5).available_bytes == 2**29


def test_the_processes_of_a_machine_share_its_memory(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: 1000)
    plan = plan_of(tiny_model_dir, devices=4, num_nodes=2)
    assert plan.available_bytes == 250 + plan.process_bytes


@pytest.mark.parametrize(
    ("stored", "scheme"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "fp4"),
        ({"quant_method": "gptq", "bits": 4}, "nf4"),
    ],
    ids=["int8", "fp4", "gptq"],
)
def test_a_base_that_is_quantized_already_is_estimated_as_it_is_stored(
    tiny_model_dir: Path, tmp_path: Path, stored: dict[str, object], scheme: str
) -> None:
    described = json.loads((tiny_model_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, "quantization_config": stored}))
    plan = plan_of(tmp_path)
    plan.config.quant.name = "none"
    assert plan.request(MicroBatchSize(rows=2), layout()).quant.name == scheme
    assert not hasattr(plan.model.config, "quantization_config")
    assert not plan.remedies.four_bits


def test_an_ordinary_base_is_estimated_as_configured(tiny_model_dir: Path) -> None:
    plan = plan_of(tiny_model_dir)
    plan.config.quant.name = "int8"
    assert plan.request(MicroBatchSize(rows=2), layout()).quant.name == "int8"
    assert plan.remedies.four_bits
