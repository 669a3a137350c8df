"""`trainer.batch_size=auto` lowers what was estimated until a step fits."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from loralab.config.model import QuantConfig
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.data.cutting import MicroBatchSize
from loralab.data.layout import Layout
from loralab.data.masking import Example
from loralab.data.records import Conversation
from loralab.errors import ConfigError
from loralab.model.memory_advice import Remedies
from loralab.model.memory_request import OPTIMIZER, MemoryEstimate
from loralab.runs.folder import RunFolder
from loralab.runs.memory import GIB
from loralab.training import session
from loralab.training.batch_size import estimate_size, try_size
from loralab.training.session import settle_size

WIDTH = 48
LENGTHS = np.array([5, 40, 17, 3, 30, 22, 8, 9, 9, 9])
LAYOUT = Layout(LENGTHS, np.arange(len(LENGTHS)), 0)
AUTO = TrainConfig(trainer=TrainerConfig(batch_size="auto"))


@dataclass
class Planner:
    """Gives 10 GiB to a run whose optimizer takes 1 and every token `per_token` bytes."""

    config: TrainConfig = field(default_factory=lambda: AUTO)
    per_token: int = 1
    remedies: Remedies = Remedies("auto")  # noqa: RUF009
    available_bytes: int = 10 * GIB
    device = torch.device("cpu")
    pad_id = 0
    quant = QuantConfig("none")

    @property
    def data(self) -> Any:
        rows = [Example([1] * length, [1] * length, Conversation(())) for length in LENGTHS]
        return SimpleNamespace(train=SimpleNamespace(examples=rows))

    def request(self, size: MicroBatchSize, layout: Layout) -> int:
        assert size.tokens is not None
        return size.tokens

    def estimate(self, tokens: int) -> MemoryEstimate:
        return MemoryEstimate({OPTIMIZER: GIB, "activations": tokens * self.per_token})


class Module(nn.Module):
    """Keeps the shape of every micro-batch, and runs out of memory above some rows."""

    def __init__(self, most_rows: int = 100) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.masters = nn.Linear(1, 1)
        self.most_rows, self.shapes = most_rows, list[tuple[int, ...]]()

    def batch_losses(self, batch: Any) -> Any:
        self.shapes.append(tuple(batch.input_ids.shape))
        if len(batch.input_ids) > self.most_rows:
            raise torch.OutOfMemoryError
        return SimpleNamespace(weighted=lambda: self.weight * torch.rand(1))


class Meter:
    """Measures half a GiB and `gib` for each row of the latest micro-batch."""

    def __init__(self, module: Module, gib: float = 2.0, can_reset: bool = True) -> None:
        self.module, self.gib, self.can_reset = module, gib, can_reset

    def mark(self, stage: str) -> Any:
        return SimpleNamespace(peak_gib=0.5 + self.gib * self.module.shapes[-1][0])


def tried(module: Module, meter: Meter, planner: Planner | None = None, rows: int = 8) -> int:
    size = MicroBatchSize(tokens=rows * WIDTH)
    found: Any = try_size(size, module, planner or Planner(), LAYOUT, meter)  # type: ignore[arg-type]
    assert found.rows is None
    return int(found.tokens)


@pytest.mark.parametrize(
    ("per_token", "step_examples", "rows"),
    # 8 of the 9 GiB are left to activations; a row has 48 tokens.
    [(1, None, 10), (1, 2, 2), (8 * GIB // (3 * WIDTH), None, 3), (8 * GIB // (3 * WIDTH) + 1, None, 2),
     (GIB, None, 1)],
)  # fmt: skip
def test_the_estimate_is_of_the_widest_rows_that_fit_and_at_least_one(per_token, step_examples, rows):
    trainer = TrainerConfig(batch_size="auto", step_examples=step_examples)
    planner: Any = Planner(replace(AUTO, trainer=trainer), per_token)
    assert estimate_size(planner, LAYOUT) == MicroBatchSize(tokens=rows * WIDTH)


def test_a_process_is_given_no_more_than_its_part_of_a_step():
    planner: Any = Planner(replace(AUTO, trainer=TrainerConfig(batch_size="auto", devices=4)), 1)
    # 16 examples of a step, four for each process.
    assert estimate_size(planner, LAYOUT) == MicroBatchSize(tokens=4 * WIDTH)


def test_the_size_is_lowered_until_a_step_fits_beside_the_optimizer():
    module = Module()
    # 8 rows take 17.5 GiB, and 9 / 17.5 of them are 4; 4 take 9.5, and 9 / 9.5 of them are 3, which take 7.5.
    assert tried(module, Meter(module)) == 3 * WIDTH
    assert module.shapes == [(8, WIDTH), (4, WIDTH), (3, WIDTH)]


def test_what_ran_out_of_memory_is_halved():
    module = Module(most_rows=2)
    assert tried(module, Meter(module, gib=0.1)) == 2 * WIDTH
    assert [rows for rows, _ in module.shapes] == [8, 4, 2]


def test_a_trial_leaves_no_gradient_and_no_change_of_the_random_state():
    module = Module()
    before = torch.get_rng_state()
    tried(module, Meter(module))
    assert module.weight.grad is None
    assert torch.equal(torch.get_rng_state(), before)


def test_where_no_peak_starts_anew_the_estimate_stands():
    module = Module()
    assert tried(module, Meter(module, gib=100, can_reset=False)) == 8 * WIDTH
    assert module.shapes == []


@pytest.mark.parametrize(
    ("trainer", "remedies", "ways"),
    [
        (
            {},
            Remedies("auto"),
            "trainer.gradient_checkpointing=true or a smaller data.max_length or quant=nf4",
        ),
        ({"gradient_checkpointing": True}, Remedies("auto", four_bits=False), "a smaller data.max_length"),
    ],
)
def test_one_row_that_does_not_fit_is_refused_with_what_is_left_to_change(trainer, remedies, ways):
    config = TrainConfig(trainer=TrainerConfig(batch_size="auto", **trainer))
    module = Module()
    with pytest.raises(ConfigError) as refusal:
        tried(module, Meter(module, gib=10), Planner(config, remedies=remedies), rows=1)
    assert str(refusal.value) == (
        "trainer.batch_size=auto: one row of 48 tokens takes 11.5 of 10.0 GiB, of which a step may fill 90%. "
        f"Use {ways}."
    )


def test_one_row_that_runs_out_of_memory_is_refused():
    module = Module(most_rows=0)
    with pytest.raises(ConfigError, match=r"one row of 48 tokens takes more than 10\.0 GiB"):
        tried(module, Meter(module))
    assert [rows for rows, _ in module.shapes] == [8, 4, 2, 1]


def run_with(tmp_path: Path, **manifest: int) -> RunFolder:
    run = RunFolder(tmp_path)
    run.manifest_path.write_text(json.dumps({"seed": 1, **manifest}))
    return run


def settled(run: RunFolder, config: TrainConfig, size: MicroBatchSize) -> MicroBatchSize:
    plan: Any = SimpleNamespace(config=config, size=size, memory=None, layout=None)
    return settle_size(run, plan, None, None)  # type: ignore[arg-type]


def test_a_size_that_is_given_is_not_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "try_size", lambda *_: pytest.fail("tried"))
    size = MicroBatchSize(rows=4)
    assert settled(run_with(tmp_path), TrainConfig(), size) == size


def test_a_size_that_was_found_before_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "try_size", lambda *_: pytest.fail("tried"))
    run = run_with(tmp_path, micro_batch_tokens=96)
    assert settled(run, AUTO, MicroBatchSize(tokens=480)) == MicroBatchSize(tokens=96)


def test_a_size_that_is_found_is_kept_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "try_size", lambda *_: MicroBatchSize(tokens=144))
    run = run_with(tmp_path)
    assert settled(run, AUTO, MicroBatchSize(tokens=480)) == MicroBatchSize(tokens=144)
    assert json.loads(run.manifest_path.read_text()) == {"seed": 1, "micro_batch_tokens": 144}
