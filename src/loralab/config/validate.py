"""Ranges, choices and cross-group rules, all checked before anything loads and reported together."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from loralab.config.data_rules import FORMATS, data_faults
from loralab.config.gpu_rules import gpu_faults
from loralab.config.lora_rules import lora_faults
from loralab.config.method_rules import method_faults
from loralab.config.optim_rules import OPTIM_FIELDS, SCHEDULES, optim_faults
from loralab.config.profiler_rules import short_run_fault
from loralab.config.quant_rules import quant_faults
from loralab.config.resume_rules import resume_faults
from loralab.config.schema import EvaluateConfig, TrainConfig, TrainerConfig
from loralab.errors import ConfigError, did_you_mean

CHOICES: dict[str, tuple[str | None, ...]] = {
    "model.attention": ("auto", "sdpa", "eager", "flash_attention_2"),
    "quant.name": ("nf4", "fp4", "int8", "none"),
    "quant.compute_dtype": (None, "bf16", "fp16", "fp32"),
    "quant.storage_dtype": ("uint8", "bf16", "fp16", "fp32"),
    "lora.method": ("lora", "adalora", "vera", "ia3", "prefix", "prompt", "ptuning"),
    "lora.bias": ("none", "all", "lora_only"),
    "lora.init": ("default", "gaussian", "orthogonal", "pissa", "olora", "loftq", "eva", "corda"),
    "data.name": ("calls", "file"),
    "data.format": FORMATS,
    "data.on_error": ("raise", "skip"),
    "data.preference": (None, "chosen"),
    "data.privacy.action": ("none", "report", "mask", "drop"),
    "data.dedup.near": ("none", "prompt", "conversation"),
    "data.contamination.action": ("none", "report", "drop"),
    "data.split.method": ("random", "stratified", "grouped", "temporal", "hash"),
    "data.over_length": ("drop", "raise", "cut_response", "cut_oldest", "cut_prompt", "window"),
    "trainer.accelerator": ("auto", "cpu", "gpu"),
    "trainer.strategy": ("ddp", "fsdp"),
    "trainer.precision": ("auto", "bf16", "fp16", "fp32"),
    "objective.name": ("sft",),
    "optim.name": tuple(OPTIM_FIELDS),
    "schedule.name": SCHEDULES,
    "schedule.decay_shape": ("linear", "cosine", "sqrt"),
    "logger.name": ("local", "wandb", "tensorboard", "mlflow"),
    "logger.mode": ("online", "offline", "disabled"),
}
"""Keys whose value is one of a few words."""


@dataclass(frozen=True)
class Rule:
    """What a number must satisfy; null passes, because the schema says where null is allowed."""

    holds: Callable[[Any], bool]
    allowed: str


def at_least(low: int) -> Rule:
    """A number of at least `low`."""
    return Rule(lambda value: value >= low, f"{low} or more")


SMALLEST_WINDOW = 8
ABOVE_ZERO = Rule(lambda value: 0 < value < math.inf, "above 0")
SHARE = Rule(lambda value: 0 <= value <= 1, "0 to 1")
POSITIVE_SHARE = Rule(lambda value: 0 < value <= 1, "above 0, at most 1")
HELD_OUT = Rule(lambda value: 0 < value < 0.5, "above 0 and below 0.5")  # noqa: PLR2004

RULES: dict[str, Rule] = {
    "lora.r": Rule(lambda value: 1 <= value <= 1024, "1 to 1024"),  # noqa: PLR2004
    "lora.alpha": ABOVE_ZERO,
    "lora.dropout": Rule(lambda value: 0 <= value < 1, "0 to below 1"),
    "data.val_fraction": HELD_OUT,
    "data.test_fraction": HELD_OUT,
    "data.max_examples": at_least(1),
    "data.max_length": at_least(8),
    "data.max_dropped": SHARE,
    "data.num_workers": at_least(0),
    "data.quality.min_chars": at_least(0),
    "data.quality.min_tokens": at_least(0),
    "data.quality.max_tokens": at_least(1),
    "data.quality.max_repetition": SHARE,
    "data.quality.max_garble": SHARE,
    "data.quality.max_prompt_copy": SHARE,
    "data.dedup.threshold": POSITIVE_SHARE,
    "data.dedup.num_perm": Rule(lambda value: 16 <= value <= 1024, "16 to 1024"),  # noqa: PLR2004
    "data.contamination.ngram": at_least(5),
    "data.contamination.near": POSITIVE_SHARE,
    "trainer.epochs": ABOVE_ZERO,
    "trainer.max_steps": at_least(1),
    "lora.initial_rank": Rule(lambda value: 1 <= value <= 1024, "1 to 1024"),  # noqa: PLR2004
    "lora.virtual_tokens": Rule(lambda value: 1 <= value <= 1000, "1 to 1000"),  # noqa: PLR2004
    "quant.int8_threshold": at_least(0),
    "trainer.batch_size": Rule(
        lambda value: value == "auto" or (type(value) is int and value >= 1), "1 or more, or auto"
    ),
    "trainer.devices": Rule(
        lambda value: value == "auto" or (type(value) is int and value >= 1), "1 or more, or auto"
    ),
    "trainer.num_nodes": at_least(1),
    "trainer.step_examples": at_least(1),
    "trainer.memory_gib": ABOVE_ZERO,
    "trainer.accumulation": at_least(1),
    "trainer.batch_tokens": at_least(16),
    "trainer.grad_clip": ABOVE_ZERO,
    "trainer.val_every": ABOVE_ZERO,
    "trainer.threads": at_least(1),
    "trainer.gradient_checkpointing": Rule(
        lambda value: type(value) is bool or (type(value) is int and value >= 1), "true, false, or 1 or more"
    ),
    "trainer.speed.liger": Rule(lambda value: type(value) is bool or value == "auto", "true, false, or auto"),
    "trainer.neftune_alpha": Rule(lambda value: 0 <= value < math.inf, "0 or more"),
    "optim.lr": Rule(lambda value: 0 < value <= 1, "above 0, at most 1"),
    "optim.betas": Rule(
        lambda betas: len(betas) == 2 and all(0 <= b < 1 for b in betas),  # noqa: PLR2004
        "two numbers of at least 0 and below 1",
    ),
    "optim.eps": ABOVE_ZERO,
    "optim.weight_decay": SHARE,
    "optim.momentum": Rule(lambda value: 0 <= value < 1, "0 to below 1"),
    "optim.lora_plus_ratio": Rule(lambda value: 1 <= value < math.inf, "1 or more"),
    "schedule.warmup": Rule(lambda value: 0 <= value < math.inf, "0 or more"),
    "schedule.floor": SHARE,
    "schedule.cycles": at_least(1),
    "schedule.power": ABOVE_ZERO,
    "schedule.decay_share": POSITIVE_SHARE,
    "callbacks.log_every": at_least(1),
    "callbacks.checkpoint_every": at_least(1),
    "callbacks.checkpoint_minutes": ABOVE_ZERO,
    "callbacks.keep_last": at_least(1),
    "callbacks.stability.window": at_least(SMALLEST_WINDOW),
    "callbacks.stability.warmup": at_least(2),
    "callbacks.stability.spike_factor": Rule(lambda value: 1 < value < math.inf, "above 1"),
    "callbacks.stability.spike_sigmas": ABOVE_ZERO,
    "callbacks.stability.spikes": at_least(1),
    "callbacks.stability.lr_factor": POSITIVE_SHARE,
    "callbacks.stability.lr_steps": at_least(1),
    "callbacks.stability.return_steps": at_least(2),
    "callbacks.stability.max_interventions": at_least(1),
    "callbacks.profiler.first_step": at_least(0),
    "callbacks.profiler.steps": at_least(1),
    "callbacks.early_stopping.patience": at_least(1),
    "callbacks.early_stopping.min_improvement": Rule(lambda value: 0 <= value < math.inf, "0 or more"),
    "eval.watch_prompts": at_least(0),
    "eval.watch_tokens": at_least(1),
    "eval.max_examples": at_least(1),
    "eval.max_new_tokens": at_least(1),
    "eval.batch_size": at_least(1),
    "eval.samples": at_least(0),
    "seed": Rule(lambda value: 0 <= value < 2**32, "0 to 4294967295"),
}
"""Keys with a range."""


def validate_train(config: TrainConfig, more: Iterable[str] = ()) -> None:
    """Checks ranges, choices and what must hold between groups.

    Args:
        config: What to check.
        more: Faults that were found elsewhere, to be listed with the others.

    Raises:
        ConfigError: One message that lists every fault.
    """
    found = [*_wrong_choices(config), *_out_of_range(config, RULES), *_cross_group(config), *more]
    # A wrong encoding is a fault of every file that should have it.
    _raise_all(list(dict.fromkeys(found)))


def validate_evaluate(config: EvaluateConfig) -> None:
    """Checks the config of `evaluate.py`.

    Raises:
        ConfigError: One message that lists every fault.
    """
    faults = list(
        _out_of_range(config, dict.fromkeys(("max_examples", "max_new_tokens", "batch_size"), at_least(1)))
    )
    accelerators = CHOICES["trainer.accelerator"]
    if config.accelerator is not None and config.accelerator not in accelerators:
        faults.append(_unknown("accelerator", config.accelerator, accelerators))
    if not config.run:
        faults.append("run is missing: python evaluate.py run=RUN, with a run id or a run folder.")
    _raise_all(faults)


def _raise_all(faults: list[str]) -> None:
    if len(faults) == 1:
        raise ConfigError(faults[0])
    if faults:
        raise ConfigError("\n  ".join([f"{len(faults)} faults in the configuration:", *faults]))


def _unknown(key: str, value: object, options: tuple[str | None, ...]) -> str:
    words = ["null" if option is None else option for option in options]
    return f"{key}={value!r} is unknown.{did_you_mean(str(value), words)} Allowed: {', '.join(words)}."


def _wrong_choices(config: TrainConfig) -> Iterator[str]:
    for key, options in CHOICES.items():
        value = attrgetter(key)(config)
        if value not in options:
            yield _unknown(key, value, options)


def _out_of_range(config: TrainConfig | EvaluateConfig, rules: dict[str, Rule]) -> Iterator[str]:
    for key, rule in rules.items():
        value = attrgetter(key)(config)
        if value is not None and not rule.holds(value):
            yield f"{key}={value} is out of range. Allowed: {rule.allowed}."


def _cross_group(config: TrainConfig) -> Iterator[str]:
    trainer, name = config.trainer, config.run.name
    if trainer.accelerator == "cpu" and config.model.attention == "flash_attention_2":
        yield "model.attention=flash_attention_2 needs a GPU. Use model.attention=sdpa."
    if any(not token.strip() for token in config.model.added_tokens):
        yield "model.added_tokens holds an empty token. Give texts such as ['<call>'], or []."
    if config.model.path is None and config.model.revision is not None:
        yield (
            f"model.revision={config.model.revision!r} has no effect with the embedded model, of which there "
            "is one. Leave it out."
        )
    if name is not None and (not name.strip("./ ") or "/" in name or "\\" in name):
        yield f"run.name={name!r} is not a folder name. Use letters, digits, '-', '_' and '.'."
    if config.data.packing and trainer.batch_tokens is not None:
        yield (
            "data.packing=true fills rows of data.max_length tokens, so trainer.batch_tokens has no place. "
            "Set trainer.batch_tokens=null or data.packing=false."
        )
    if config.data.packing and config.model.attention == "eager":
        yield "data.packing=true keeps examples apart inside attention. Use model.attention=auto."
    stability = config.callbacks.stability
    if stability.warmup > stability.window >= SMALLEST_WINDOW:
        yield (
            f"callbacks.stability.warmup={stability.warmup} is above callbacks.stability.window="
            f"{stability.window}, so spikes would never be looked for. Use a larger window."
        )
    most = trainer.max_steps
    if fault := short_run_fault(config.callbacks.profiler, most, f"trainer.max_steps={most}"):
        yield fault
    yield from resume_faults(config)
    yield from step_faults(trainer)
    yield from gpu_faults(config)
    yield from quant_faults(config)
    yield from lora_faults(config)
    yield from method_faults(config)
    yield from optim_faults(config)
    yield from data_faults(config.data)


def step_faults(trainer: TrainerConfig) -> Iterator[str]:
    """Yields what contradicts itself about how much a step sees."""
    given, wanted = trainer.step_examples, trainer.batch_size
    if trainer.batch_tokens is not None and (wanted == "auto" or given is not None):
        key = "batch_size=auto" if wanted == "auto" else f"step_examples={given}"
        yield (
            f"trainer.batch_tokens={trainer.batch_tokens} says already how much goes into a micro-batch, and "
            f"accumulation how many make a step: trainer.{key} has no place. Leave one of them out."
        )
    if wanted == "auto" and trainer.accumulation != 1:
        yield (
            f"trainer.accumulation={trainer.accumulation} follows from trainer.batch_size=auto. Say how many "
            "examples a step sees with trainer.step_examples."
        )
    if type(wanted) is int and given is not None and trainer.accumulation != 1:
        yield (
            f"trainer.step_examples={given} and trainer.accumulation={trainer.accumulation} both say how "
            "large a step is. Leave one of them out."
        )
