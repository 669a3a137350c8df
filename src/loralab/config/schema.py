"""One dataclass per configuration group; Hydra checks every YAML file and override against them."""

from dataclasses import dataclass, field
from typing import Any

from loralab.config.data import DataConfig
from loralab.config.model import LoraConfig, ModelConfig, QuantConfig

DEFAULT_LR = 2e-4
EMBEDDED_LR = 2e-3
FAST_METHODS, FAST_FACTOR = ("vera", "ia3", "prefix", "prompt"), 10
"""Methods with few trained numbers, and how much larger their default learning rate is."""


@dataclass
class RunConfig:
    """Where a run is kept."""

    name: str | None = None
    """Run id and folder name; null makes one from the date, the time, the model and the adapter."""
    outputs_dir: str = "outputs"
    """Folder that holds `train/<run id>` and `evaluate/<run id>`."""


@dataclass
class TrainerConfig:
    """The loop: how long, how much at once, on what."""

    accelerator: str = "auto"
    """auto (a GPU where there is one), cpu or gpu."""
    precision: str = "auto"
    """Compute dtype: bf16, fp32, or auto (bf16 where the hardware multiplies it natively)."""
    epochs: float = 2.0
    """Passes over the training rows; above 0."""
    max_steps: int | None = None
    """Optimizer steps; null follows `epochs`."""
    batch_size: Any = 4
    """Examples (packed: rows) per micro-batch, or auto: as many as keep the peak under 90% of memory, found
    before the first step. It changes how a step is cut, never what it sees (`step_examples`)."""
    accumulation: int = 1
    """Micro-batches per optimizer step; a step sees batch_size x accumulation examples."""
    step_examples: int | None = None
    """Examples (packed: rows) of an optimizer step; null is batch_size x accumulation, or 16 where
    batch_size is auto."""
    memory_gib: float | None = None
    """Memory that the run may take, in GiB; null is what is free when it starts."""
    batch_tokens: int | None = None
    """Most tokens of a micro-batch, padding included: groups examples of similar length instead of
    taking `batch_size` of them. null counts examples."""
    grad_clip: float | None = 1.0
    """Largest global L2 norm of the gradient; null does not clip."""
    val_every: float = 0.25
    """Validate every so many steps (1 or more) or share of an epoch (below 1)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    threads: int | None = None
    """CPU threads; null leaves PyTorch's choice."""


@dataclass
class ObjectiveConfig:
    """What is optimised."""

    name: str = "sft"
    """sft: cross entropy on the supervised tokens."""


@dataclass
class OptimConfig:
    """The optimizer."""

    name: str = "adamw"
    """adamw (arXiv:1711.05101)."""
    lr: float | None = None
    """Peak learning rate, above 0, at most 1; null takes 2e-4, or 2e-3 for the small embedded model, and ten
    times that for vera, ia3, prefix and prompt."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    """Decay rates of the first and second moment; each at least 0 and below 1."""
    eps: float = 1e-8
    """Added to the root of the second moment; above 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay; 0 to 1."""


@dataclass
class ScheduleConfig:
    """How the learning rate moves."""

    name: str = "cosine"
    """cosine, linear or constant, each after a linear warm-up."""
    warmup: float = 0.05
    """Share of all steps (below 1) or number of steps (1 or more) spent warming up; 0 or more."""
    floor: float = 0.0
    """Final learning rate as a share of the peak; 0 to 1."""


@dataclass
class CallbacksConfig:
    """What is watched and kept during training."""

    progress: bool = True
    """Show the progress line in the terminal."""
    log_every: int = 5
    """Fetch and write metrics, a line for each step, every so many optimizer steps."""
    checkpoint_every: int | None = None
    """Save `last` every so many steps; null saves it at each validation. Best is saved at validation."""


@dataclass
class LoggerConfig:
    """Where metrics go besides `metrics.jsonl`, which is always written."""

    name: str = "local"
    """local: nowhere else; wandb: Weights & Biases."""
    project: str = "loralab"
    """W&B project."""
    mode: str = "online"
    """W&B mode: online or offline (kept in the run folder, no account needed)."""


@dataclass
class EvalConfig:
    """The comparison of base and tuned model on the test split."""

    enabled: bool = True
    """Compare at the end of training."""
    max_examples: int = 200
    """Test rows to compare on, from the front of the split."""
    max_new_tokens: int | None = None
    """Longest generated answer; null takes the longest reference plus a quarter, at most 256 tokens."""
    batch_size: int = 64
    """Prompts generated at once."""
    samples: int = 5
    """Prompts shown side by side."""


@dataclass
class TrainConfig:
    """Everything `train.py` needs."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    seed: int = 0
    """Seed of data order, adapter initialisation and dropout; 0 or more."""
    resume: str | None = None
    """Run id or folder of a stopped run to continue."""
    dry_run: bool = False
    """Prepare the data, print and write the plan of the run, and stop before any weights load."""

    def __post_init__(self) -> None:
        """Fills in the learning rate where it is null."""
        if self.optim.lr is None:
            base = EMBEDDED_LR if self.model.path is None else DEFAULT_LR
            self.optim.lr = base * (FAST_FACTOR if self.lora.method in FAST_METHODS else 1)


@dataclass
class EvaluateConfig:
    """Everything `evaluate.py` needs; null takes the training run's own value."""

    run: str = ""
    """Run id or folder of the training run to evaluate."""
    name: str | None = None
    """Id of this evaluation; null makes one from the date, the time and the training run."""
    outputs_dir: str = "outputs"
    """Folder that holds `train/<run id>` and `evaluate/<run id>`."""
    accelerator: str | None = None
    """auto, cpu or gpu."""
    max_examples: int | None = None
    """Test rows to compare on."""
    max_new_tokens: int | None = None
    """Longest generated answer in tokens."""
    batch_size: int | None = None
    """Prompts generated at once."""
