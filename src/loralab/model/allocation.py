"""What a CPU's allocator and kernels hold beside the tensors of a step."""

import os

import torch

from loralab.runs.allocator import is_replaced

GAP_SHARE = 0.4
"""What glibc holds as a share of the tensors (`benchmarks/memory.py`): its heap keeps gaps between freed
blocks; with many small blocks several times as much."""
CACHED_BYTES = 72 * 2**20
"""What allocators hold that give blocks back to requests of their size (`runs.allocator`): about as much
whatever the step."""
KERNEL_BYTES = 32 * 2**20
"""Code that oneDNN writes for the products of a step in 16 bits, and the copies that it makes of operands."""


def gap_bytes(live: int, dtype: torch.dtype) -> int:
    """Estimates what is held beside the tensors of a stage.

    Args:
        live: Bytes of these tensors.
        dtype: Compute dtype.
    """
    kernels = 0 if dtype == torch.float32 else KERNEL_BYTES
    return kernels + (CACHED_BYTES if is_replaced(os.environ) else round(GAP_SHARE * live))
