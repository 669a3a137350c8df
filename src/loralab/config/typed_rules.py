"""Keys of loggers and callbacks that a user typed although nothing reads them, as the rest is set."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from operator import attrgetter

from loralab.config.callbacks import ProfilerConfig, StabilityConfig
from loralab.config.resume_rules import AUTO
from loralab.config.schema import TrainConfig

LOGGER_FIELDS = {"project": ("wandb", "mlflow"), "mode": ("wandb",), "uri": ("mlflow",)}
"""Fields of the `logger` group by the loggers that read them."""
STABILITY, EARLY, PROFILER = "callbacks.stability", "callbacks.early_stopping", "callbacks.profiler"


def typed_keys(overrides: Sequence[str]) -> list[str]:
    """Lists the keys and groups of words such as `optim.lr=1e-4` and `+experiment=quick`."""
    return [word.lstrip("+~").partition("=")[0].partition("@")[0] for word in overrides]


def typed_faults(config: TrainConfig, overrides: Sequence[str]) -> Iterator[str]:
    """Yields what was typed and has no effect; a preset may hold the same for when it has one.

    Args:
        config: The config that a run trains with. One that names a run to resume is not: most of it is in
            that run's own.
        overrides: What the user typed, or its keys.
    """
    if config.resume not in (None, AUTO):
        return
    default, typed = TrainConfig(), typed_keys(overrides)
    for key, why in _without_effect(config):
        value = attrgetter(key)(config)
        if key in typed and value != attrgetter(key)(default):
            yield f"{key}={value} has no effect {why}"


def _without_effect(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Yields keys that nothing reads, with why and the fix."""
    logger = config.logger.name
    for name, readers in LOGGER_FIELDS.items():
        if logger not in readers:
            why = f"with logger={logger}; it belongs to {', '.join(readers)}. Leave it out."
            yield f"logger.{name}", why
    if config.callbacks.early_stopping.patience is None:
        yield f"{EARLY}.min_improvement", f"without {EARLY}.patience. Give that too, or leave it out."
    if not config.callbacks.stability.enabled:
        for name in (item.name for item in fields(StabilityConfig) if item.name != "enabled"):
            yield f"{STABILITY}.{name}", f"with {STABILITY}.enabled=false. Leave one of them out."
    if not config.callbacks.profiler.enabled:
        for name in (item.name for item in fields(ProfilerConfig) if item.name != "enabled"):
            yield f"{PROFILER}.{name}", "without callbacks=profiler. Give that too, or leave it out."
