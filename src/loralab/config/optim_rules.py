"""What must hold between `optim`, `schedule` and the rest, as far as it shows without the model."""

from collections.abc import Iterator

from loralab.config.schema import OptimConfig, ScheduleConfig, TrainConfig

MOMENTS, MOMENTUM = frozenset({"betas", "eps"}), frozenset({"momentum", "nesterov"})
OPTIM_FIELDS: dict[str, frozenset[str]] = {
    "adamw": MOMENTS,
    "adamw_8bit": MOMENTS,
    "paged_adamw": MOMENTS,
    "paged_adamw_8bit": MOMENTS,
    "lion": frozenset({"betas"}),
    "adafactor": frozenset(),
    "sgd": MOMENTUM,
    "lamb": MOMENTS,
    "novograd": MOMENTS,
    "muon": MOMENTS | MOMENTUM,
    "schedule_free_adamw": MOMENTS,
}
"""Fields of the `optim` group that not every optimizer reads, by the optimizers that do."""

SCHEDULES = ("cosine", "cosine_restarts", "linear", "polynomial", "inverse_sqrt", "constant", "wsd")
SCHEDULE_FIELDS = {
    "cycles": "cosine_restarts", "power": "polynomial", "decay_share": "wsd", "decay_shape": "wsd"
}  # fmt: skip
"""Fields of the `schedule` group that one schedule alone reads."""

PAGED = ("paged_adamw", "paged_adamw_8bit")
LOW_RANK_METHODS = ("lora", "adalora")
"""Methods that train matrices A and B."""
OVERWRITES_GRADIENTS = ("novograd", "muon", "schedule_free_adamw")
"""Optimizers that use the gradients' memory for their own numbers."""


def optim_faults(config: TrainConfig) -> Iterator[str]:
    """Yields every setting that the optimizer or the schedule ignores, and all that they cannot join."""
    optim, schedule, method = config.optim, config.schedule, config.lora.method
    if optim.name not in OPTIM_FIELDS or schedule.name not in SCHEDULES:
        return  # Named among the unknown choices already.
    yield from _ignored_fields(optim, schedule)
    for key, factor in optim.lr_pattern.items():
        if not 0 < factor < float("inf"):
            yield f"optim.lr_pattern: {key}={factor} is out of range. Allowed: above 0."
    if optim.nesterov and optim.momentum == 0:
        yield "optim.nesterov=true looks ahead by optim.momentum, which is 0. Leave one of them out."
    if optim.name == "schedule_free_adamw":
        yield from _schedule_free_faults(optim, schedule)
    if method not in LOW_RANK_METHODS and optim.lora_plus_ratio != 1:
        yield (
            f"optim.lora_plus_ratio={optim.lora_plus_ratio:g} tells B from A, which lora.method={method} has "
            "not. Leave it out."
        )
    if method not in LOW_RANK_METHODS and optim.name == "muon":
        yield f"optim=muon is made for matrices A and B, which lora.method={method} has not. Use optim=adamw."
    if method == "adalora" and optim.name in OVERWRITES_GRADIENTS:
        yield (
            f"lora.method=adalora measures importance by gradients after the step, which optim={optim.name} "
            "overwrites. Use optim=adamw."
        )
    if config.trainer.accelerator == "cpu" and (fault := paged_fault(optim.name)):
        yield fault


def paged_fault(name: str) -> str | None:
    """Says why an optimizer cannot run on a CPU; None where it can."""
    if name not in PAGED:
        return None
    return (
        f"optim={name} moves its state from a full GPU to the CPU's memory, and here there is no GPU. "
        f"Use optim={name.removeprefix('paged_')}."
    )


def _schedule_free_faults(optim: OptimConfig, schedule: ScheduleConfig) -> Iterator[str]:
    if schedule.name != "constant":
        yield (
            f"optim=schedule_free_adamw averages its weights instead of lowering the rate, and schedule="
            f"{schedule.name} would do both. Use schedule=constant."
        )
    if optim.betas[:1] == [0]:
        yield "optim.betas[0]=0 leaves schedule_free_adamw nothing of its average. Use 0.9."


def _ignored_fields(optim: OptimConfig, schedule: ScheduleConfig) -> Iterator[str]:
    default = OptimConfig()
    for key in sorted(MOMENTS | MOMENTUM):
        value = getattr(optim, key)
        if key not in OPTIM_FIELDS[optim.name] and value != getattr(default, key):
            readers = [name for name, fields in OPTIM_FIELDS.items() if key in fields]
            yield (
                f"optim.{key}={_shown(value)} has no effect with optim={optim.name}; it belongs to "
                f"{', '.join(readers)}. Leave it out."
            )
    for key, reader in SCHEDULE_FIELDS.items():
        value = getattr(schedule, key)
        if schedule.name != reader and value != getattr(ScheduleConfig, key):
            yield (
                f"schedule.{key}={value} has no effect with schedule={schedule.name}; it belongs to "
                f"{reader}. Leave it out."
            )


def _shown(value: object) -> str:
    return str(value).replace(" ", "").lower()
