"""Faster ways to the same numbers."""

from dataclasses import dataclass
from typing import Any


@dataclass
class SpeedConfig:
    """What takes less time or memory than the plain model; each can be turned off to compare."""

    fused_head: bool = True
    """Find the gradient of the loss while the logits are there, once, instead of computing them again in the
    backward pass; where the output head is frozen."""
    padding_free: bool = True
    """Lay the rows of a padded micro-batch end to end, so that nothing is computed for padding; where the
    model can keep documents apart, as for packed rows."""
    shared_prefix: bool = True
    """Compute what all examples of a micro-batch begin with, such as a system prompt, once; for packed rows
    and those without padding, where neither dropout nor noise tells the copies apart; not on flash-attn."""
    parallel_rows: bool = True
    """Let rows go through the model side by side, each on a thread of its own, instead of all threads through
    one operator after another; on a CPU, for packed rows and those without padding, with neither dropout nor
    noise nor `compile`."""
    block_attention: bool = True
    """Attention of packed rows as few large matrix products; on a CPU in bfloat16. Its scores are rounded to
    that type, as in transformers' `eager`, where PyTorch's kernel keeps float32."""
    fused_lora: bool = True
    """Compute the frozen product of a LoRA layer and its update together, and with `recompute_elementwise`
    but without `compile` a gated feed-forward layer as a whole; where neither dropout nor DoRA, nor another
    dtype, stands between."""
    recompute_elementwise: bool = True
    """Keep only the inputs of norms and gated activations for the backward pass, and with `fused_lora` not
    the product of gate and upward projection; where they are written as Llama's and their weights frozen.
    Apply rotary embeddings in fewer passes too, where a family's function is Llama's."""
    compile: bool = False
    """Compile norms and gated activations, each into one pass over memory; needs a C++ compiler, on a GPU
    Triton. It takes 5 to 30 seconds at the start, less where its cache is warm."""
    liger: Any = "auto"
    """Turn logits into their gradient in place by a kernel of the package liger-kernel, on a GPU and with
    `fused_head`: true, false, or auto, where the package is installed (`pip install 'loralab[liger]'`)."""
