"""The plan of a run: it must agree with the run that it announces, and load no weights."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from loralab.data.cutting import MicroBatchSize
from loralab.data.datamodule import StepDataset
from loralab.data.layout import Layout
from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.plan import StepPlan
from loralab.data.records import Conversation, Message
from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder
from loralab.training import dry_run
from loralab.training.dry_run import MicroShape, sample_shapes, step_shapes
from loralab.training.memory_plan import largest_batch

LENGTHS = [5, 40, 17, 3, 30, 22, 9, 16, 33, 12, 7]
LAYOUTS = {"examples": {}, "packed": {"pack_length": 48}, "grouped": {"batch_tokens": 64}}
BATCH_SIZE = 2
SIZE = MicroBatchSize(rows=BATCH_SIZE)


@pytest.fixture
def plan_tiny(compose_tiny, tmp_path, monkeypatch, capsys):
    """Plans a run on the tiny model where nothing can load weights."""

    def refuse(*args, **kwargs):
        raise AssertionError("a dry run loads no weights")

    monkeypatch.setattr("loralab.model.load.load_base", refuse)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))

    def plan(*overrides) -> tuple[RunFolder, str]:
        run = dry_run.plan_run(compose_tiny(tmp_path / "outputs", "dry_run=true", *overrides))
        return run, capsys.readouterr().out

    return plan


def layout_and_plan(kind):
    layout = Layout(np.array(LENGTHS), np.arange(len(LENGTHS)), 0, **LAYOUTS[kind])
    rows_per_step = 2 if kind == "grouped" else 2 * BATCH_SIZE
    return layout, StepPlan(layout.num_units, rows_per_step, 2.0, None, 1.0, 0)


def test_a_dry_run_writes_what_is_known_before_training_and_nothing_else(plan_tiny, tmp_path):
    run, _ = plan_tiny("run.name=planned")
    assert run.path == tmp_path / "outputs" / "dry_run" / "planned"
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.yaml", "data.json", "manifest.json", "overrides.yaml", "plan.html"
    ]  # fmt: skip
    assert json.loads(run.data_path.read_text())["splits"]["test"]["rows"] == 8
    assert json.loads(run.manifest_path.read_text())["data"][0]["sha256"]


def test_a_dry_run_prints_the_steps_that_the_run_takes(plan_tiny):
    # 40 rows, 8 for the test and 2 for validation: 30 in steps of 4.
    run, text = plan_tiny()
    assert re.search(r"steps\s+│ 12 +│ 8 per epoch", text)
    assert re.search(r"validations\s+│ 3 ", text)
    assert re.search(r"rows +│ +30 │ +2 │ +8 ", text)
    assert "nothing was trained" in text
    assert "12 steps, about" in (run.path / "plan.html").read_text(encoding="utf-8")


def test_a_dry_run_shows_what_is_learned(plan_tiny):
    run, text = plan_tiny()
    assert "<|im_end|>" in text
    page = (run.path / "plan.html").read_text(encoding="utf-8")
    assert len(re.findall(r"<h3>Training example", page)) == 20
    learned = int(re.search(r"tokens, (\d+) learned", page)[1])
    first = page[page.index("<h3>Training example 1") : page.index("<h3>Training example 2")]
    assert first.count("<mark") == learned > 0


@pytest.mark.parametrize("option", ["data.packing=true", "trainer.batch_tokens=128"])
def test_every_layout_can_be_planned(plan_tiny, option):
    _, text = plan_tiny(option)
    assert "filled" in text


def test_a_dry_run_says_what_each_of_several_processes_takes(plan_tiny):
    _, text = plan_tiny("trainer.batch_size=4", "trainer.step_examples=4", "trainer.devices=2")
    assert " GiB in each of 2 processes, in micro-batches of 2 rows\n" in text
    # Where the cell is too narrow, its text goes on in the next line of the table.
    assert "free here for each of 2 processes" in " ".join(text.replace("│", " ").split())


def test_a_dry_run_refuses_a_name_that_is_taken(plan_tiny):
    plan_tiny("run.name=taken")
    with pytest.raises(ConfigError, match="exists already"):
        plan_tiny("run.name=taken")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_planned_shapes_are_those_of_the_batches(kind):
    layout, plan = layout_and_plan(kind)
    row = Conversation((Message("user", "a"), Message("assistant", "b")))
    examples = [Example([1] * length, [IGNORE_INDEX] + [1] * (length - 1), row) for length in LENGTHS]
    dataset = StepDataset(examples, plan, layout, SIZE, 0)
    for step in range(plan.total_steps):
        batches = dataset[step].micro_batches
        real = [(*batch.input_ids.shape, int(batch.attention_mask.sum())) for batch in batches]
        assert Counter(step_shapes(layout, plan, step, SIZE)) == Counter(MicroShape(*s) for s in real)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("size", [SIZE, MicroBatchSize(tokens=144)])
def test_no_micro_batch_is_larger_than_the_largest(kind, size):
    layout, plan = layout_and_plan(kind)
    largest = largest_batch(layout, np.array(LENGTHS) - 1, size)
    tokens = [shape.tokens for shape in sample_shapes(layout, plan, size)]
    assert max(tokens) <= largest.rows * largest.width


def test_a_single_process_that_would_split_the_base_is_told_that_it_does_not(plan_tiny):
    assert "fsdp: a single process splits nothing" in plan_tiny("trainer.strategy=fsdp")[1]
    assert "splits nothing" not in plan_tiny("trainer.strategy=fsdp", "trainer.devices=2")[1]
