"""The plan of a run: what its data becomes, which steps it takes and what they cost. No weights load."""

from dataclasses import dataclass

from rich.console import Console

from loralab.config.load import to_yaml
from loralab.config.schema import TrainConfig
from loralab.data.cutting import MicroBatchSize, cut
from loralab.data.layout import Layout
from loralab.data.plan import StepPlan
from loralab.errors import ConfigError
from loralab.evaluation.data_facts import PlanFacts, gather_facts
from loralab.evaluation.data_page import write_data_page
from loralab.evaluation.data_tables import print_facts
from loralab.model.hardware import dtype_name
from loralab.model.size import ModelSize, measure_model
from loralab.model.throughput import EFFICIENCY, forward_flops, matmul_rate, training_flops
from loralab.runs.folder import RunFolder
from loralab.training.memory_plan import padded
from loralab.training.plan import TrainingPlan, plan_training
from loralab.training.record import begin_training, new_run
from loralab.training.setup import Setup, prepare

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
    plan = plan_training(config, setup)
    run = new_run(plan.config, setup, "dry_run")
    begin_training(run, plan.config, setup)
    console.print(f"run folder: {run.path}", soft_wrap=True)
    for note in plan.notes:
        console.print(note, soft_wrap=True)
    facts = gather_facts(
        run.run_id,
        (config.data, setup.data),
        setup.tokenizer,
        to_yaml(plan.config),
        plan.layout,
        estimate(plan, setup),
    )
    print_facts(console, facts)
    try:
        plan.memory.check(plan.request)
    except ConfigError as error:
        console.print(f"warning: {error}", soft_wrap=True)
    console.print(f"plan:       {write_data_page(run.path / PAGE_NAME, facts)}", soft_wrap=True)
    console.print(f"run folder: {run.path} (dry run: nothing was trained)", soft_wrap=True)
    return run


def estimate(plan: TrainingPlan, setup: Setup) -> PlanFacts:
    """Estimates what the steps cost in memory and time."""
    config, layout, steps, memory = plan.config, plan.layout, plan.steps, plan.estimate
    size, largest = measure_model(setup.model), plan.request
    tokens = largest.rows * largest.width
    rate = matmul_rate(size.largest_linear, tokens, (setup.device, setup.dtype))
    shapes = sample_shapes(layout, steps, plan.size)
    num_sampled = min(SAMPLED_STEPS, steps.total_steps)
    padded = sum(shape.tokens for shape in shapes)
    dtype = dtype_name(setup.dtype)
    return PlanFacts(
        model=f"{config.model.name} · quant {config.quant.name} · {dtype} on {setup.device.type} "
        f"· rank {config.lora.r}",
        num_adapter=memory.num_trainable,
        num_parameters=size.num_linear + size.num_other + memory.num_trainable,
        total_steps=steps.total_steps,
        steps_per_epoch=steps.steps_per_epoch,
        epochs=steps.epoch_at(steps.total_steps),
        validations=steps.num_validations(0),
        val_interval=steps.val_interval,
        tokens_per_step=padded / num_sampled,
        padding=1 - sum(shape.text_tokens for shape in shapes) / padded,
        memory_bytes={name: num_bytes for name, num_bytes in memory.parts.items() if num_bytes},
        memory_note=f"{largest.rows:,} x {largest.width:,} tokens",
        free_bytes=plan.memory.available_bytes,
        time_s=count_flops(size, config, setup, steps, shapes) / (rate * EFFICIENCY),
        flops_per_s=rate,
        efficiency=EFFICIENCY,
        num_processes=config.trainer.num_processes,
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


def sample_shapes(layout: Layout, steps: StepPlan, size: MicroBatchSize) -> list[MicroShape]:
    """Lists the micro-batches of up to `SAMPLED_STEPS` steps, spread evenly over the run."""
    num_sampled = min(SAMPLED_STEPS, steps.total_steps)
    chosen = [step * steps.total_steps // num_sampled for step in range(num_sampled)]
    return [shape for step in chosen for shape in step_shapes(layout, steps, step, size)]


def step_shapes(layout: Layout, steps: StepPlan, step: int, size: MicroBatchSize) -> list[MicroShape]:
    """Lists the micro-batches of a step as the data module cuts them, without building one."""
    epoch = step // steps.steps_per_epoch
    units = [layout.lengths[layout.unit(epoch, unit)] for unit in steps.rows(step)]
    if layout.is_grouped:
        return [MicroShape(len(unit), padded(unit.max()), int(unit.sum())) for unit in units]
    if layout.pack_length is None:
        units = sorted(units, key=lambda unit: int(unit[0]), reverse=True)
    widths = [layout.pack_length or padded(unit[0]) for unit in units]
    return [
        MicroShape(len(chunk), widths[chunk[0]], sum(int(units[place].sum()) for place in chunk))
        for chunk in cut(widths, size)
    ]
