"""Learning-rate schedules: pure functions of the step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from loralab.config.schema import ScheduleConfig


@dataclass(frozen=True)
class Decay:
    """Where a step is in what follows the warm-up, in whole steps."""

    done: int
    """Steps since the warm-up."""
    length: int
    """Steps of the run after the warm-up, at least 1."""
    warmup: int
    """Steps of the warm-up."""
    schedule: ScheduleConfig

    @property
    def progress(self) -> float:
        """The share that is over, 0 to 1."""
        return self.done / self.length


def half_cosine(progress: float) -> float:
    """Falls from 1 to 0 along half a cosine (arXiv:1608.03983, equation 5)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def cosine_restarts(decay: Decay) -> float:
    """Falls along a half cosine in each of `cycles` cycles of one length (arXiv:1608.03983, section 3)."""
    if decay.done >= decay.length:
        return 0.0
    # In whole numbers, so that a cycle begins at its step and not a rounding error later.
    return half_cosine(decay.done * decay.schedule.cycles % decay.length / decay.length)


def inverse_sqrt(decay: Decay) -> float:
    """Falls as 1 / sqrt(n) at the n-th step, from the peak at the warm-up's last (arXiv:1706.03762, eq. 3).

    Without a warm-up the first step is the peak.
    """
    return math.sqrt(max(1, decay.warmup) / (decay.warmup + decay.done + 1))


def warmup_stable_decay(decay: Decay) -> float:
    """Stays at the peak, then falls to 0 in the last `decay_share` of all steps (arXiv:2404.06395, part 4).

    The shape "sqrt" is 1 - sqrt(progress) (arXiv:2405.18392, section 3).
    """
    schedule = decay.schedule
    falling = min(decay.length, max(1, round(schedule.decay_share * (decay.warmup + decay.length))))
    progress = max(0, decay.done - (decay.length - falling)) / falling
    return SHAPES[schedule.decay_shape](progress)


SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: 1 - progress,
    "cosine": half_cosine,
    "sqrt": lambda progress: 1 - math.sqrt(progress),
}
"""Ways down by `schedule.decay_shape`: from the share that is over to the share of the peak."""

DECAYS: dict[str, Callable[[Decay], float]] = {
    "cosine": lambda decay: half_cosine(decay.progress),
    "cosine_restarts": cosine_restarts,
    "linear": lambda decay: 1 - decay.progress,
    "polynomial": lambda decay: (1 - decay.progress) ** decay.schedule.power,
    "inverse_sqrt": inverse_sqrt,
    "constant": lambda decay: 1.0,
    "wsd": warmup_stable_decay,
}
"""From where a step is to the share of the peak, 1 to 0."""


def warmup_steps(warmup: float, total_steps: int) -> int:
    """Turns `schedule.warmup` into steps: below 1 a share of all steps, else a number of steps."""
    return round(warmup * total_steps) if warmup < 1 else min(round(warmup), total_steps)


def lr_factor(step: int, total_steps: int, schedule: ScheduleConfig) -> float:
    """Returns the share of the peak learning rate at an optimizer step.

    Linear from 1/warmup at step 0 to 1, then down from 1 towards `schedule.floor`.

    Args:
        step: The step about to be taken, from 0.
        total_steps: Steps of the whole run.
        schedule: Its name, warm-up, floor and shape.
    """
    warmup = warmup_steps(schedule.warmup, total_steps)
    if step < warmup:
        return (step + 1) / warmup
    decay = Decay(step - warmup, max(1, total_steps - warmup), warmup, schedule)
    return schedule.floor + (1 - schedule.floor) * DECAYS[schedule.name](decay)
