"""The schema of the `callbacks` group: what watches a run, saves it and ends it."""

from dataclasses import dataclass, field


@dataclass
class StabilityConfig:
    """When a step is left out, the rate lowered, a checkpoint taken up again, or the run stopped."""

    enabled: bool = True
    """Look at the loss and the raw gradient norm of each step before the optimizer does."""
    window: int = 64
    """Steps that the medians are taken of; 8 or more."""
    warmup: int = 20
    """Steps after which spikes are looked for, 2 or more; numbers that are not finite always are."""
    spike_factor: float = 6.0
    """A spike is at least so many times the median of the window; above 1."""
    spike_sigmas: float = 10.0
    """A spike is also so many standard deviations of the logarithm above its median; above 0. The deviation
    is 1.4826 times the median absolute one, which tells heavy tails from explosions."""
    spikes: int = 3
    """Spikes within a window after which the rate is lowered; 1 or more."""
    lr_factor: float = 0.5
    """What the rate is multiplied by then, and after a rollback; above 0, at most 1."""
    lr_steps: int = 50
    """Steps that it stays lowered for; 1 or more."""
    return_steps: int = 10
    """Steps after a spike in most of which the loss must be back below the window's highest, or the last
    checkpoint before the spike is taken up again; 2 or more."""
    max_interventions: int = 20
    """Skipped batches, lowered rates and rollbacks within 1000 steps that stop the run; 1 or more."""


@dataclass
class EarlyStoppingConfig:
    """When a run stops because the validation loss does not improve."""

    patience: int | None = None
    """Validations without improvement, 1 or more; null trains to the last step."""
    min_improvement: float = 0.0
    """How much lower than the best a validation loss must be to count, in nats; 0 or more."""


@dataclass
class ProfilerConfig:
    """Which steps are profiled, in every process; the trace and the table lie in the run's `profile/`."""

    enabled: bool = False
    """Record where the time of a few steps goes. They are slower; losses and weights stay the same."""
    first_step: int = 5
    """Steps of warm-up before the first one that is profiled, 0 or more, counted from where training begins
    or goes on. A resumed run that has its table is not profiled again."""
    steps: int = 3
    """Steps that are profiled, 1 or more; fewer where a validation comes between them."""
    memory: bool = False
    """Record what tensors take as well: a curve in the trace, and slower steps."""


@dataclass
class CallbacksConfig:
    """What is watched and kept during training."""

    progress: bool = True
    """Show the progress line in the terminal."""
    log_every: int = 5
    """Fetch and write metrics, a line for each step, every so many optimizer steps."""
    checkpoint_every: int | None = None
    """Save a checkpoint every so many steps; null leaves it at minutes and at each validation."""
    checkpoint_minutes: float | None = 10.0
    """Save a checkpoint where so many minutes have passed since the last one, above 0; null does not."""
    keep_last: int = 2
    """Checkpoints kept besides the best one, 1 or more; a damaged one is passed over for the one before."""
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    """What happens when a batch explodes."""
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    """When training stops before its last step."""
    profiler: ProfilerConfig = field(default_factory=ProfilerConfig)
    """What is profiled."""
