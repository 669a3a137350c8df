"""Faster ways to the same numbers."""

from dataclasses import dataclass
from typing import Any


@dataclass
class SpeedConfig:
    """What runs in fewer passes over memory than the plain model; each can be turned off to compare."""

    fused_head: bool = True
    """Find the gradient of the loss while the logits are there, once, instead of computing them again in the
    backward pass; where the output head is frozen."""
    padding_free: bool = True
    """Lay the rows of a padded micro-batch end to end, so that nothing is computed for padding; where the
    model can keep documents apart, as for packed rows."""
    block_attention: bool = True
    """Attention of packed rows as few large matrix products; on a CPU in bfloat16. Its scores are rounded to
    that type, as in transformers' `eager`, where PyTorch's kernel keeps float32."""
    fused_lora: bool = True
    """Compute the frozen product of a LoRA layer and its update together; where neither dropout nor DoRA, nor
    another dtype, stands between them."""
    compile: bool = False
    """Compile norms and gated activations, each into one pass over memory; needs a C++ compiler, on a GPU
    Triton. It takes 5 to 30 seconds at the start, less where its cache is warm."""
    liger: Any = "auto"
    """Turn logits into their gradient in place by a kernel of the package liger-kernel, on a GPU and with
    `fused_head`: true, false, or auto, where the package is installed (`pip install 'loralab[liger]'`)."""
