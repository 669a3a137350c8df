"""The plan of a run: what its data becomes, which steps it takes and what they cost. No weights load."""

import math
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from rich.console import Console

from loralab.config.load import to_yaml
from loralab.config.schema import TrainConfig
from loralab.data.collate import PAD_MULTIPLE
from loralab.data.layout import Layout
from loralab.data.plan import StepPlan
from loralab.evaluation.data_facts import PlanFacts, gather_facts
from loralab.evaluation.data_page import write_data_page
from loralab.evaluation.data_tables import print_facts
from loralab.model.footprint import ModelSize, estimate_memory, measure_model
from loralab.model.load import load_config, skeleton
from loralab.model.throughput import EFFICIENCY, forward_flops, matmul_rate, training_flops
from loralab.runs.folder import RunFolder
from loralab.runs.memory import GIB, rss_gib
from loralab.training.record import begin_training
from loralab.training.setup import Setup, make_plan, prepare

PAGE_NAME = "plan.html"
SAMPLED_STEPS = 500
"""Steps whose shapes are looked at; their mean stands for all."""


@dataclass(frozen=True)
class MicroShape:
    """The size of a micro-batch."""

    rows: int
    """Rows."""
    width: int
    """Tokens of a row, padding included."""
    text_tokens: int
    """Tokens that are no padding."""

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return self.rows * self.width


def plan_run(config: TrainConfig) -> RunFolder:
    """Prepares everything that comes before the weights, prints it and writes `plan.html`.

    Raises:
        LoralabError: Something the user must change.
    """
    console = Console(highlight=False)
    setup = prepare(config)
    run = begin_training(config, setup, "dry_run")
    console.print(f"run folder: {run.path}", soft_wrap=True)
    layout, steps = make_plan(config, setup.data)
    facts = gather_facts(
        run.run_id,
        (config.data, setup.data),
        setup.tokenizer,
        to_yaml(config),
        layout,
        estimate(config, setup, layout, steps),
    )
    print_facts(console, facts)
    console.print(f"plan:       {write_data_page(run.path / PAGE_NAME, facts)}", soft_wrap=True)
    console.print(f"run folder: {run.path} (dry run: nothing was trained)", soft_wrap=True)
    return run


def estimate(config: TrainConfig, setup: Setup, layout: Layout, steps: StepPlan) -> PlanFacts:
    """Estimates what the steps cost in memory and time."""
    size = measure_model(skeleton(config.model, load_config(config.model)), config.lora)
    largest = largest_micro_batch(layout, config.trainer.batch_size)
    memory = estimate_memory(
        size, config.quant, setup.dtype, largest.tokens, config.trainer.gradient_checkpointing
    )
    if setup.device.type == "cpu":
        memory["libraries (measured)"] = round(rss_gib() * GIB)
    rate = matmul_rate(size.largest_linear, largest.tokens, (setup.device, setup.dtype))
    shapes = sample_shapes(layout, steps, config.trainer.batch_size)
    num_sampled = min(SAMPLED_STEPS, steps.total_steps)
    padded = sum(shape.tokens for shape in shapes)
    dtype = str(setup.dtype).removeprefix("torch.")
    return PlanFacts(
        model=f"{config.model.name} · quant {config.quant.name} · {dtype} on {setup.device.type} "
        f"· rank {config.lora.r}",
        num_adapter=size.num_adapter,
        num_parameters=size.num_linear + size.num_other + size.num_adapter,
        total_steps=steps.total_steps,
        steps_per_epoch=steps.steps_per_epoch,
        epochs=steps.epoch_at(steps.total_steps),
        validations=steps.num_validations(0),
        val_interval=steps.val_interval,
        tokens_per_step=padded / num_sampled,
        padding=1 - sum(shape.text_tokens for shape in shapes) / padded,
        memory_bytes=memory,
        memory_note=f"{largest.rows:,} x {largest.width:,} tokens",
        free_bytes=free_bytes(setup.device),
        time_s=count_flops(size, config, setup, steps, shapes) / (rate * EFFICIENCY),
        flops_per_s=rate,
        efficiency=EFFICIENCY,
    )


def count_flops(
    size: ModelSize, config: TrainConfig, setup: Setup, steps: StepPlan, shapes: list[MicroShape]
) -> float:
    """Counts the operations of all steps and validations, the one of the base model included.

    Args:
        size: The model.
        config: Whether activations are recomputed.
        setup: The data.
        steps: How many steps and validations.
        shapes: Micro-batches of a sample of the steps.
    """
    train, val = setup.data.train.ledger, setup.data.val.ledger
    share = train.supervised_tokens / train.tokens
    checkpointing = config.trainer.gradient_checkpointing
    # Packed documents attend to themselves alone.
    length = train.tokens / train.examples if config.data.packing else None
    sampled = sum(
        training_flops(size, shape.tokens, length or shape.width, share * shape.text_tokens, checkpointing)
        for shape in shapes
    )
    training = sampled * steps.total_steps / min(SAMPLED_STEPS, steps.total_steps)
    each = forward_flops(size, val.tokens, val.tokens / val.examples, val.supervised_tokens)
    return training + each * (steps.num_validations(0) + 1)


def sample_shapes(layout: Layout, steps: StepPlan, batch_size: int) -> list[MicroShape]:
    """Lists the micro-batches of up to `SAMPLED_STEPS` steps, spread evenly over the run."""
    num_sampled = min(SAMPLED_STEPS, steps.total_steps)
    chosen = [step * steps.total_steps // num_sampled for step in range(num_sampled)]
    return [shape for step in chosen for shape in step_shapes(layout, steps, step, batch_size)]


def step_shapes(layout: Layout, steps: StepPlan, step: int, batch_size: int) -> list[MicroShape]:
    """Lists the micro-batches of a step as `data.datamodule` builds them, from lengths alone."""
    epoch = step // steps.steps_per_epoch
    units = [layout.lengths[layout.unit(epoch, unit)] for unit in steps.rows(step)]
    if layout.is_grouped:
        return [MicroShape(len(unit), _padded(unit.max()), int(unit.sum())) for unit in units]
    if layout.pack_length is None:
        units = sorted(units, key=lambda unit: int(unit[0]), reverse=True)
    chunks = [units[at : at + batch_size] for at in range(0, len(units), batch_size)]
    return [
        MicroShape(
            len(chunk),
            layout.pack_length or _padded(chunk[0][0]),
            sum(int(unit.sum()) for unit in chunk),
        )
        for chunk in chunks
    ]


def largest_micro_batch(layout: Layout, batch_size: int) -> MicroShape:
    """Finds the most tokens that go through the model at once."""
    if layout.is_grouped:
        units = (layout.lengths[layout.unit(0, number)] for number in range(layout.num_units))
        shapes = (MicroShape(len(unit), _padded(unit.max()), int(unit.sum())) for unit in units)
        return max(shapes, key=lambda shape: shape.tokens)
    rows = min(batch_size, layout.num_units)
    width = layout.pack_length or _padded(layout.lengths[layout.mixture].max())
    return MicroShape(rows, width, rows * width)


def free_bytes(device: torch.device) -> int:
    """Memory that the run could use: what is free on the GPU, else on the machine beside this process."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available + rss_gib() * GIB)


def _padded(length: int | np.int64) -> int:
    return math.ceil(int(length) / PAD_MULTIPLE) * PAD_MULTIPLE
