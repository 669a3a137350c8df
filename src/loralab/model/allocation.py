"""What a CPU's allocator and kernels hold beside the tensors of a step."""

import os

import torch

from loralab.runs.allocator import is_replaced

GAP_SHARE = 0.4
"""What glibc holds as a share of the tensors (`benchmarks/memory.py`): its heap keeps gaps between freed
blocks; with many small blocks several times as much."""
KEPT_SHARE, KEPT_SHARE_HALF, KERNEL_BYTES = 1.0, 1.45, 16 * 2**20
"""What allocators hold that give blocks back to requests of their size (`runs.allocator`), as a share of what
a decoder layer makes in a forward pass: blocks whose size nothing else asks for. In 16 bits oneDNN adds
copies of its operands, and code for the shapes of its products."""


def gap_bytes(live: int, made: float, dtype: torch.dtype) -> int:
    """Estimates what is held beside the tensors of a stage.

    Args:
        live: Bytes of these tensors.
        made: Bytes that a decoder layer makes in a forward pass.
        dtype: Compute dtype.
    """
    kernels, share = (0, KEPT_SHARE) if dtype == torch.float32 else (KERNEL_BYTES, KEPT_SHARE_HALF)
    return round(kernels + (share * made if is_replaced(os.environ) else GAP_SHARE * live))
