"""What a training run will do, before any weights load: its steps, its memory, and what was left open."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from loralab.config.model import LoraConfig, QuantConfig
from loralab.config.profiler_rules import check_profiled
from loralab.config.schema import TrainConfig
from loralab.data.collate import pad_examples
from loralab.data.cutting import MicroBatchSize
from loralab.data.datamodule import make_layout
from loralab.data.layout import Layout
from loralab.data.plan import StepPlan
from loralab.data.prepare import PreparedData
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.patterns import layer_sides
from loralab.model.adapters.registry import METHODS
from loralab.model.location import model_location
from loralab.model.lora import trainable
from loralab.model.memory import build_shadow
from loralab.model.memory_advice import advise, resized
from loralab.model.memory_request import MemoryEstimate, MemoryRequest
from loralab.model.proposal import AdaptedLayers, Proposal, propose_rank, scaled_alpha
from loralab.model.tokenizer import added_token_ids
from loralab.optim.groups import check_lr_pattern
from loralab.runs.memory import GIB
from loralab.training.batch_size import estimate_size
from loralab.training.memory_plan import AUTO, HEADROOM, MemoryPlan, rows_at_once, rows_per_step
from loralab.training.setup import Setup

CALIBRATION_ROWS, CALIBRATION_BATCH = 64, 8
"""Training rows that EVA and CorDA look at, and how many at once."""

WORTH_TRYING = 0.95
"""Share of the memory that a step must stay below to be advised where it did not fit."""


@dataclass(frozen=True)
class TrainingPlan:
    """A run that is ready to load its model."""

    config: TrainConfig
    """The config, with what `lora=auto` chose."""
    layout: Layout
    """How examples fill rows."""
    steps: StepPlan
    """Which rows each step sees."""
    size: MicroBatchSize
    """How a step is cut."""
    memory: MemoryPlan
    """What estimates the memory of this run and of others like it."""
    request: MemoryRequest
    """Its micro-batch that takes the most."""
    estimate: MemoryEstimate
    """The peak with it."""
    notes: list[str]
    """What was chosen, a line each; the last one is about memory."""


def plan_training(config: TrainConfig, setup: Setup) -> TrainingPlan:
    """Fills in what `auto` leaves open, checks the adapter, and estimates the memory of a run.

    Raises:
        ConfigError: The adapter does not suit the model.
    """
    notes = list(setup.notes)
    if config.trainer.strategy == "fsdp" and config.trainer.num_processes == 1:
        notes.append("trainer.strategy=fsdp: a single process splits nothing; it holds the whole base")
    layout = lay_out(config, setup.data)
    pad_id = setup.tokenizer.pad_token_id
    memory = MemoryPlan(config, setup.data, (setup.device, setup.dtype), pad_id)
    if config.lora.auto:
        proposal = propose(config, setup, layout, memory)
        notes += [f"lora=auto: {reason}" for reason in proposal.reasons]
        lora = dataclasses.replace(config.lora, r=proposal.r, alpha=proposal.alpha, auto=False)
        config = dataclasses.replace(config, lora=lora)
        memory = MemoryPlan(config, setup.data, (setup.device, setup.dtype), pad_id)
    steps = step_plan(config, layout)
    check_profiled(config.callbacks.profiler, steps.total_steps, f"trainer.epochs={config.trainer.epochs:g}")
    # Building PEFT's config refuses what the model cannot take.
    METHODS[config.lora.method](setup.model, config.lora, adapter_context(config, setup, steps))
    notes.append(describe_adapter(config, setup))
    if config.trainer.batch_size == AUTO:
        size = estimate_size(memory, layout)
    else:
        size = MicroBatchSize(rows=rows_at_once(config, layout))
    request = memory.request(size, layout)
    if config.optim.lr_pattern:
        # What trains is known once an adapter is there; one without values takes no weights to be made.
        shadow = build_shadow(memory.model, dataclasses.replace(request, quant=QuantConfig(name="none")))
        check_lr_pattern(config.optim, trainable(shadow))
    estimate = memory.estimate(request)
    notes.append(_describe_memory(memory, size, estimate))
    return TrainingPlan(config, layout, steps, size, memory, request, estimate, notes)


def with_size(plan: TrainingPlan, size: MicroBatchSize) -> TrainingPlan:
    """Returns the plan of a run whose steps are cut in another way, estimated anew."""
    if size == plan.size:
        return plan
    request = plan.memory.request(size, plan.layout)
    estimate = plan.memory.estimate(request)
    notes = [*plan.notes[:-1], _describe_memory(plan.memory, size, estimate)]
    return dataclasses.replace(plan, size=size, request=request, estimate=estimate, notes=notes)


def less_memory(plan: TrainingPlan) -> str:
    """Names settings that take less than a step of one row does now, with what each is estimated to save."""
    memory = plan.memory
    single = resized(plan.request, 1, plan.request.width)
    now = memory.estimate(single).peak
    found = advise(single, memory.estimate, round(WORTH_TRYING * now), memory.remedies)
    lines = [
        f"  {' '.join(each.overrides)}  (saves about {(now - each.peak) / GIB:.2f} of {now / GIB:.2f} GiB; "
        f"{each.cost})"
        for each in found
    ]
    if not lines:
        return "Nothing short of a smaller model takes less."
    return "\n".join(["These take less:", *lines])


def lay_out(config: TrainConfig, data: PreparedData) -> Layout:
    """Says how the examples of an epoch fill the rows that the model sees."""
    pack_length = config.data.max_length if config.data.packing else None
    return make_layout(data, config.seed, pack_length, config.trainer.batch_tokens)


def step_plan(config: TrainConfig, layout: Layout) -> StepPlan:
    """Says which rows each step sees."""
    trainer = config.trainer
    return StepPlan(
        num_rows=layout.num_units,
        rows_per_step=rows_per_step(config, layout),
        epochs=trainer.epochs,
        max_steps=trainer.max_steps,
        val_every=trainer.val_every,
        seed=config.seed,
    )


def propose(config: TrainConfig, setup: Setup, layout: Layout, memory: MemoryPlan) -> Proposal:
    """Chooses rank and alpha for the rows, the model and the memory of a run."""

    def fits(rank: int) -> bool:
        """Whether a step with this rank is estimated to stay within the memory."""
        lora = dataclasses.replace(config.lora, r=rank, alpha=scaled_alpha(rank, config.lora.rslora))
        wanted = dataclasses.replace(config, lora=lora)
        size = MicroBatchSize(rows=rows_at_once(config, layout))
        estimate = memory.estimate(memory.request(size, layout, wanted))
        return estimate.peak <= HEADROOM * memory.available_bytes

    modules = dict(setup.model.named_modules())
    assert setup.targets is not None, "prompts have no rank to propose"
    ledger, sides = setup.data.train.ledger, [layer_sides(modules[name]) for name in setup.targets.names]
    layers = AdaptedLayers(
        params_per_rank=sum(map(sum, sides)),
        width=setup.model.config.get_text_config().hidden_size,
        narrowest=min(map(min, sides)),
    )
    proposal = propose_rank(ledger.kept, ledger.supervised_tokens, layers, config.lora.rslora, fits)
    return dataclasses.replace(proposal, reasons=[*_replaced(config.lora), *proposal.reasons])


def _replaced(lora: LoraConfig) -> list[str]:
    """Says which rank and alpha of the user's own give way to what is proposed."""
    given = [] if lora.r == LoraConfig.r else [f"lora.r={lora.r}"]
    if lora.alpha != LoraConfig(r=lora.r).alpha:
        given.append(f"lora.alpha={lora.alpha:g}")
    return [f"{' and '.join(given)} replaced by what follows"] if given else []


def adapter_context(config: TrainConfig, setup: Setup, steps: StepPlan) -> AdapterContext:
    """Gathers what adapter methods may need of a run."""

    def calibration() -> Iterator[dict[str, Tensor]]:
        """Yields padded batches of training rows, spread over the whole split."""
        examples = setup.data.train.examples
        apart = max(1, len(examples) // CALIBRATION_ROWS)
        chosen = [examples[number] for number in range(0, len(examples), apart)][:CALIBRATION_ROWS]
        for at in range(0, len(chosen), CALIBRATION_BATCH):
            batch = pad_examples(chosen[at : at + CALIBRATION_BATCH], setup.tokenizer.pad_token_id)
            yield {
                "input_ids": batch.input_ids.to(setup.device),
                "attention_mask": batch.attention_mask.to(setup.device),
            }

    return AdapterContext(
        tokenizer=setup.tokenizer,
        added_token_ids=tuple(added_token_ids(setup.tokenizer, config.model)),
        total_steps=steps.total_steps,
        base_dir=model_location(config.model),
        calibration=calibration,
    )


def describe_adapter(config: TrainConfig, setup: Setup) -> str:
    """Says in a line what trains."""
    lora, targets = config.lora, setup.targets
    if targets is None:
        return f"adapter: {lora.method}, {lora.virtual_tokens} virtual tokens"
    sizes = {
        "lora": f", rank {lora.r}, alpha {lora.alpha:g}",
        "adalora": f", rank {lora.r} at the end, alpha {lora.alpha:g}",
        "vera": f", rank {lora.r}",
    }
    return f"adapter: {lora.method}{sizes.get(lora.method, '')}, on {targets.summary}"


def _describe_memory(memory: MemoryPlan, size: MicroBatchSize, estimate: MemoryEstimate) -> str:
    rows = f"{size.rows} row{'s' * (size.rows != 1)}"
    cut = rows if size.tokens is None else f"up to {size.tokens:,} tokens"
    stored = memory.stored
    kept = (
        "" if stored is None or stored.method == "bitsandbytes"
        else f"; its {stored.label} weights are taken for {memory.quant.name}"
    )  # fmt: skip
    num_processes = memory.config.trainer.num_processes
    each = f" in each of {num_processes} processes" if num_processes > 1 else ""
    return (
        f"memory: {estimate.peak / GIB:.2f} GiB estimated of {memory.available_bytes / GIB:.1f} GiB{each}, "
        f"in micro-batches of {cut}{kept}"
    )
