"""Learning-rate schedules: pure functions of the step."""

import math
from collections.abc import Callable

from loralab.config.schema import ScheduleConfig

DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}
"""From the share of the decay that is over (0 to 1) to the share of the peak (1 to 0)."""


def warmup_steps(warmup: float, total_steps: int) -> int:
    """Turns `schedule.warmup` into steps: below 1 a share of all steps, else a number of steps."""
    return round(warmup * total_steps) if warmup < 1 else min(round(warmup), total_steps)


def lr_factor(step: int, total_steps: int, schedule: ScheduleConfig) -> float:
    """Returns the share of the peak learning rate at a step.

    Linear from 1/warmup at step 0 to 1, then decay to `schedule.floor` (cosine: arXiv:1608.03983,
    equation 5, without restarts).

    Args:
        step: The step about to be taken, from 0.
        total_steps: Steps of the whole run.
        schedule: Its name, warm-up and floor.
    """
    warmup = warmup_steps(schedule.warmup, total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return schedule.floor + (1 - schedule.floor) * DECAYS[schedule.name](progress)
