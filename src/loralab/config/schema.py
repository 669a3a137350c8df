"""One dataclass per configuration group; Hydra checks every YAML file and override against them."""

from dataclasses import dataclass, field
from typing import Any

from loralab.config.callbacks import CallbacksConfig
from loralab.config.data import DataConfig
from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.config.speed import SpeedConfig

DEFAULT_LR = 2e-4
EMBEDDED_LR = 2e-3
FAST_METHODS, FAST_FACTOR = ("vera", "ia3", "prefix", "prompt"), 10
"""Methods with few trained numbers, and how much larger their default learning rate is."""
LR_FACTORS = {"lion": 0.2, "sgd": 100.0, "lamb": 5.0, "novograd": 5.0}
"""Default learning rates as multiples of AdamW's; 1 for optimizers that are not named.

An update of AdamW moves a number by about the rate. Lion's has no smaller entries (arXiv:2302.06675, section
5: 3 to 10 times smaller rates); those of SGD and NovoGrad (arXiv:1905.11286) are as small as the share that a
number has in the gradient; LAMB's (arXiv:1904.00962) are shares of the norm of a matrix. The others move
numbers as AdamW does: Adafactor without its scaling by the size of a parameter, and Muon scaled to AdamW's
root mean square (arXiv:2502.16982, section 2.2)."""
HIGHEST_LR = 1.0


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
    devices: Any = 1
    """Processes on each machine, one per GPU (on a CPU they share the cores): a number, or auto, as many as
    it has GPUs. torchrun and SLURM say themselves how many they start."""
    num_nodes: int = 1
    """Machines; more than one are started by torchrun or SLURM."""
    strategy: str = "ddp"
    """What several processes hold: ddp, each the whole base; or fsdp, each a share of it (arXiv:2304.11277).
    The adapter is whole in each, and its gradients are added up once per step."""
    precision: str = "auto"
    """Compute dtype: bf16, fp16 (the loss is scaled; a step that overflows is left out), fp32, or auto (bf16
    where the hardware multiplies it natively, else fp32)."""
    epochs: float = 2.0
    """Passes over the training rows; above 0."""
    max_steps: int | None = None
    """Optimizer steps; null follows `epochs`."""
    batch_size: Any = 4
    """Examples (packed: rows) per micro-batch, or auto: as many as keep the peak under 90% of memory, found
    before the first step. It changes how a step is cut, never what it sees (`step_examples`)."""
    accumulation: int = 1
    """Micro-batches per optimizer step and process; a step sees batch_size x accumulation x processes
    examples."""
    step_examples: int | None = None
    """Examples (packed: rows) of an optimizer step over all processes; null is batch_size x accumulation x
    processes, or 16 (at least one per process) where batch_size is auto."""
    memory_gib: float | None = None
    """Memory that the run may take, in GiB; null is what is free when it starts."""
    batch_tokens: int | None = None
    """Most tokens of a micro-batch, padding included: groups examples of similar length instead of
    taking `batch_size` of them. null counts examples."""
    grad_clip: float | None = 1.0
    """Largest global L2 norm of the gradient; null does not clip."""
    val_every: float = 0.25
    """Validate every so many steps (1 or more) or share of an epoch (below 1)."""
    gradient_checkpointing: Any = False
    """Recompute activations in the backward pass: less memory, about a third more time. false, true (in every
    decoder layer), or n: in every n-th."""
    offload_activations: bool = False
    """Let the layer inputs that gradient checkpointing keeps wait in the host's memory, page-locked; needs a
    GPU. Copies run beside the arithmetic."""
    neftune_alpha: float = 0.0
    """Noise on the embeddings in training, 0 or more: numbers between -1 and 1 times alpha / sqrt(tokens of
    the example x width) (NEFTune, arXiv:2310.05914, algorithm 1; 5, 10 or 15 there); 0 adds none."""
    threads: int | None = None
    """CPU threads; null leaves PyTorch's choice."""
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    """Faster ways to the same numbers."""

    @property
    def num_processes(self) -> int:
        """Processes on all machines; `devices=auto` counts as one until the GPUs are counted."""
        return self.num_nodes * (self.devices if isinstance(self.devices, int) else 1)

    @property
    def num_shards(self) -> int:
        """Processes that the base is split among."""
        return self.num_processes if self.strategy == "fsdp" else 1


@dataclass
class ObjectiveConfig:
    """What is optimised."""

    name: str = "sft"
    """sft: cross entropy on the supervised tokens."""


@dataclass
class OptimConfig:
    """The optimizer; it works on float32 copies of what trains."""

    name: str = "adamw"
    """adamw (arXiv:1711.05101); adamw_8bit (moments in 8 bits, arXiv:2110.02861); paged_adamw and
    paged_adamw_8bit (moments move to the CPU where a GPU is full, arXiv:2305.14314, section 3); lion
    (arXiv:2302.06675); adafactor (arXiv:1804.04235); sgd; lamb (arXiv:1904.00962); novograd
    (arXiv:1905.11286); muon (arXiv:2502.16982) for A and B, AdamW for the rest; or schedule_free_adamw
    (arXiv:2405.15682)."""
    lr: float | None = None
    """Peak learning rate, above 0, at most 1; null takes 2e-4, or 2e-3 for the small embedded model, ten
    times that for vera, ia3, prefix and prompt, and for some optimizers a multiple (`LR_FACTORS`)."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    """Decay rates of the first and second moment; each at least 0 and below 1. Lion: of the update, of its
    memory. schedule_free_adamw: share of the average in the point that trains (above 0), second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment; above 0."""
    weight_decay: float = 0.0
    """Weight decay; 0 to 1. Decoupled but for sgd, novograd and lamb, which add it to the gradient, the
    normalised gradient and the update."""
    decay_vectors: bool = False
    """Decay biases, norms, magnitudes and other vectors too, not matrices alone."""
    momentum: float = 0.9
    """Of sgd and muon; 0 to below 1."""
    nesterov: bool = False
    """Look ahead by the momentum, in sgd and muon."""
    lora_plus_ratio: float = 1.0
    """Learning rate of B as a multiple of A's, 1 or more (LoRA+, arXiv:2402.12354, section 4: about 16)."""
    lr_pattern: dict[str, float] = field(default_factory=dict)
    """Factors on the learning rate of single modules: the end of a module name, or a regular expression, to
    its factor, above 0. The first key that matches counts."""


@dataclass
class ScheduleConfig:
    """How the learning rate moves, counted in optimizer steps."""

    name: str = "cosine"
    """cosine, cosine_restarts (arXiv:1608.03983), linear, polynomial, inverse_sqrt (arXiv:1706.03762),
    constant, or wsd (warm-up, stable, decay; arXiv:2404.06395); each after a linear warm-up."""
    warmup: float = 0.05
    """Share of all steps (below 1) or number of steps (1 or more) spent warming up; 0 or more."""
    floor: float = 0.0
    """What decays approach, as a share of the peak; 0 to 1."""
    cycles: int = 3
    """Cosines of cosine_restarts, all of one length; 1 or more."""
    power: float = 2.0
    """Exponent of polynomial; above 0. 1 is linear."""
    decay_share: float = 0.2
    """Share of all steps in which wsd decays; above 0, at most 1."""
    decay_shape: str = "linear"
    """How wsd decays: linear, cosine, or sqrt (1 - sqrt, arXiv:2405.18392, section 3)."""


@dataclass
class LoggerConfig:
    """Where metrics go besides `metrics.jsonl`, which is always written."""

    name: str = "local"
    """local: nowhere else; wandb: Weights & Biases; tensorboard: event files in the run folder; mlflow."""
    project: str = "loralab"
    """W&B project, or MLflow experiment."""
    mode: str = "online"
    """W&B mode: online, offline (kept in the run folder, no account needed) or disabled."""
    uri: str | None = None
    """MLflow tracking URI; null takes `MLFLOW_TRACKING_URI`, else `mlflow.db` in the run folder."""


@dataclass
class EvalConfig:
    """What is measured at validations, and the comparison of base and tuned model on the test split."""

    prompt_loss: bool = True
    """Measure the loss on the tokens of prompts too at validations; it trains nothing."""
    watch_prompts: int = 2
    """First prompts of the validation split that are answered at each validation; 0 answers none."""
    watch_tokens: int = 16
    """Longest of these answers, in tokens; 1 or more."""

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
    """Run id or folder of a stopped run to continue, or auto: the newest unfinished run of the same config,
    else a new one."""
    resume_changes: Any = False
    """Keys, or groups of them, that may differ from those of the resumed run, such as [trainer.max_steps];
    true allows all."""
    dry_run: bool = False
    """Prepare the data, print and write the plan of the run, and stop before any weights load."""

    def __post_init__(self) -> None:
        """Fills in the learning rate where it is null."""
        if self.optim.lr is None:
            base = EMBEDDED_LR if self.model.path is None else DEFAULT_LR
            method = FAST_FACTOR if self.lora.method in FAST_METHODS else 1
            self.optim.lr = min(HIGHEST_LR, base * method * LR_FACTORS.get(self.optim.name, 1))


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
