"""What tells a batch that explodes from healthy ones, and what is done about it.

Loss and gradient norm of healthy training are near log-normal with heavy tails. A spike is therefore judged
on logarithms, by the median and the median absolute deviation of a moving window, which outliers do not move.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from loralab.config.callbacks import StabilityConfig

SKIPPED, RATE_LOWERED, ROLLED_BACK, OUT_OF_MEMORY = "skipped", "rate lowered", "rolled back", "out of memory"
SIGMAS_PER_MAD = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""
SMALLEST = 1e-12
"""What stands for a loss or norm of 0 or less in logarithms."""
INTERVENTION_STEPS = 1000
"""Steps within which interventions add up to a run that cannot be helped."""


@dataclass(frozen=True)
class Incident:
    """Something that was done about a step."""

    kind: str
    """`SKIPPED`, `RATE_LOWERED`, `ROLLED_BACK` or `OUT_OF_MEMORY`."""
    step: int
    """Finished steps with the one that it is about."""
    cause: str
    """Why, in words with figures."""
    rows: tuple[str, ...] = ()
    """File and place of each row of the step."""


def spike_limit(values: Sequence[float], factor: float, sigmas: float) -> float:
    """Returns the value above which the next one is a spike.

    exp(median + max(log factor, sigmas x 1.4826 x MAD)), both of the logarithms of the values.

    Args:
        values: Those of healthy steps; at least one.
        factor: Least multiple of the median.
        sigmas: Least distance from it in robust standard deviations.
    """
    logs = [math.log(max(value, SMALLEST)) for value in values]
    middle = median(logs)
    deviation = SIGMAS_PER_MAD * median(abs(value - middle) for value in logs)
    # Far above any number of a model; keeps exp from overflowing.
    return math.exp(min(700.0, middle + max(math.log(factor), sigmas * deviation)))


class Guard:
    """Judges each step by loss and raw gradient norm before the optimizer takes it.

    A step that is not finite or spikes is left out. Repeated spikes lower the rate for a while. Where the
    loss does not come back after a spike, the checkpoint before it is asked for; the data goes on, so that
    the batches that led astray are not met again (PaLM, arXiv:2204.02311, section 5.1). Everything is a
    function of the steps so far and of a state that checkpoints hold, so a resumed run decides alike.
    """

    def __init__(self, config: StabilityConfig) -> None:
        """Starts without statistics."""
        self.config = config
        self.healthy: list[list[float]] = []
        """[step, loss, norm] of the latest steps that were taken, at most `window`."""
        self.spikes: list[int] = []
        """Steps of the window that were left out, since the rate was last lowered."""
        self.interventions: list[int] = []
        self.lowered_until = 0
        """The step from which the rate is the schedule's again."""
        self.episode: dict[str, Any] | None = None
        """Since the first spike: its `start`, the `level` to return to, and how many steps were `bad`."""

    def lr_factor(self, step: int) -> float:
        """Returns what the scheduled rate of a step is multiplied by."""
        return self.config.lr_factor if step < self.lowered_until else 1.0

    def judge(self, step: int, loss: float, norm: float) -> list[Incident]:
        """Says what is wrong with a step; `SKIPPED` is among it where the optimizer must not take it.

        Args:
            step: The step, from 0.
            loss: Its loss, in nats.
            norm: Global L2 norm of its gradient before clipping.
        """
        if not self.config.enabled:
            return []
        incidents = []
        self.spikes = [each for each in self.spikes if each > step - self.config.window]
        if cause := self._fault(loss, norm):
            self.episode = self.episode or {"start": step, "level": self._level(), "bad": 0}
            self.spikes.append(step)
            incidents.append(self._intervene(SKIPPED, step, cause))
        else:
            self.healthy = [*self.healthy, [step, loss, norm]][-self.config.window :]
        if len(self.spikes) >= self.config.spikes and step >= self.lowered_until:
            incidents.append(self._intervene(RATE_LOWERED, step, self._lower(step)))
        if self.episode is not None:
            self.episode["bad"] += bool(cause) or loss > self.episode["level"]
        return incidents

    def rollback_due(self, step: int) -> int | None:
        """Returns the step to go back before, where the loss has not returned; ends an episode that is over.

        Args:
            step: The step that was just judged.
        """
        if self.episode is None or step < self.episode["start"] + self.config.return_steps:
            return None
        start, bad = int(self.episode["start"]), self.episode["bad"]
        self.episode = None
        return start if bad > self.config.return_steps / 2 else None

    def rolled_back(self, step: int, to: int) -> Incident:
        """Forgets what came after a checkpoint and lowers the rate.

        Args:
            step: The step that was just judged.
            to: The step of the checkpoint.
        """
        self.healthy = [each for each in self.healthy if each[0] < to]
        return self._intervene(
            ROLLED_BACK,
            step,
            f"the loss did not return within {self.config.return_steps} steps; weights and optimizer are "
            f"those of step {to} again, {self._lower(step)}",
        )

    def is_spent(self) -> bool:
        """Says whether there were so many interventions lately that the run should stop."""
        return len(self.interventions) >= self.config.max_interventions

    def state_dict(self) -> dict[str, Any]:
        """Returns plain numbers and lists."""
        return {name: value for name, value in self.__dict__.items() if name != "config"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes a state back."""
        self.__dict__.update(state)

    def _fault(self, loss: float, norm: float) -> str:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss {loss:.4g}, gradient norm {norm:.4g}: not finite"
        if len(self.healthy) < self.config.warmup:
            return ""
        for name, value, place in (("loss", loss, 1), ("gradient norm", norm, 2)):
            seen = [each[place] for each in self.healthy]
            limit = spike_limit(seen, self.config.spike_factor, self.config.spike_sigmas)
            if value > limit:
                return f"{name} {value:.4g} above {limit:.4g}, median {median(seen):.4g}"
        return ""

    def _level(self) -> float:
        return max((each[1] for each in self.healthy), default=math.inf)

    def _lower(self, step: int) -> str:
        self.spikes, self.lowered_until = [], step + 1 + self.config.lr_steps
        return f"the rate is {self.config.lr_factor:g} of the schedule's for {self.config.lr_steps} steps"

    def _intervene(self, kind: str, step: int, cause: str) -> Incident:
        recent = [each for each in self.interventions if each > step - INTERVENTION_STEPS]
        self.interventions = [*recent, step]
        return Incident(kind, step + 1, cause)
