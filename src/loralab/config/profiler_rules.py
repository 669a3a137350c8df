"""Rules about which steps are profiled."""

from loralab.config.callbacks import ProfilerConfig
from loralab.errors import ConfigError


def short_run_fault(config: ProfilerConfig, steps: int | None, key: str) -> str | None:
    """Says that a run ends before the first step that is profiled; None where it does not.

    Args:
        config: Which steps are profiled.
        steps: Steps of the run; None where they are not known yet.
        key: What the user would change, with its value: `trainer.max_steps=3`.
    """
    first = config.first_step
    if not config.enabled or steps is None or steps < 1 or steps > first:
        return None
    return (
        f"{key} gives {steps} step{'s' * (steps != 1)}, and callbacks.profiler.first_step={first} of warm-up "
        f"come before the first that is profiled. Use {first + 1} or more steps, or a "
        f"callbacks.profiler.first_step of at most {steps - 1}."
    )


def check_profiled(config: ProfilerConfig, steps: int, key: str) -> None:
    """Refuses a run that ends before the first step that is profiled.

    Raises:
        ConfigError: It does.
    """
    if (fault := short_run_fault(config, steps, key)) is not None:
        raise ConfigError(fault)
