"""What the memory model is asked and what it answers."""

from dataclasses import dataclass, field

import torch

from loralab.config.model import LoraConfig, QuantConfig
from loralab.config.speed import SpeedConfig

QUANTIZED, UNQUANTIZED, ADAPTERS = "quantized weights", "unquantized weights", "adapters"
GRADIENTS, OPTIMIZER, ACTIVATIONS = "gradients", "optimizer", "activations"
LOGITS, WORKSPACE, GAPS, LOADING = "logits", "workspace", "allocator", "the whole base while it loads"
PARTS = (
    QUANTIZED, UNQUANTIZED, ADAPTERS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOGITS, WORKSPACE, GAPS, LOADING
)  # fmt: skip


@dataclass(frozen=True)
class MemoryRequest:
    """What a run would do at once."""

    quant: QuantConfig
    """How the base is stored."""
    lora: LoraConfig
    """The adapter."""
    dtype: torch.dtype
    """Compute dtype."""
    rows: int
    """Rows of the largest micro-batch."""
    width: int
    """Tokens of a row, padding included."""
    num_supervised: int
    """Positions of that micro-batch whose logits are computed."""
    checkpointing: bool | int
    """Whether activations are recomputed in the backward pass; n: in every n-th decoder layer."""
    optimizer: str = "adamw"
    """A name in `OPTIMIZER_BYTES`."""
    documents: tuple[int, ...] | None = None
    """Lengths of the documents of packed rows laid end to end, which they fill; None for padded rows."""
    lengths: tuple[int, ...] | None = None
    """Tokens of each padded row where rows go through the model without their padding, if it can."""
    shared_prefix: int = 0
    """Tokens that all documents begin with, or rows without padding, where they are computed once."""
    accumulation: int = 1
    """Micro-batches of a step; from the second on, all gradients are there from the start."""
    shards: int = 1
    """Processes that the decoder layers are split among (`sharding.shard_base`)."""
    threads: int = 1
    """Threads of a CPU, each of which may take rows of its own; 1 where all work on the same ones."""
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    """Which faster paths run."""
    offload: bool = False
    """Whether the inputs of recomputed layers wait in host memory; with a GPU only."""


@dataclass(frozen=True)
class MemoryEstimate:
    """The most memory that training takes at once, or before it the loading of a base that is split later."""

    parts: dict[str, int]
    """Bytes of each of `PARTS` at that moment; `LOADING` is what loading takes beyond the others."""
    num_trainable: int = 0
    """Parameters that train."""

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def of_step(self) -> dict[str, int]:
        """Bytes of a step alone, which may be fewer than those of the loading before it."""
        return {part: size for part, size in self.parts.items() if part != LOADING}
