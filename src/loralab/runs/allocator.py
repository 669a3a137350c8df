"""How the memory allocator of a CPU run treats large tensors."""

import ctypes
import sys

M_MMAP_THRESHOLD = -3
"""The number of this option of `mallopt` (man 3 mallopt)."""
SMALLEST_BLOCK = 64 * 1024
"""Bytes; tensors below this are few and small."""


def return_large_blocks(threshold_bytes: int = SMALLEST_BLOCK) -> bool:
    """Makes the C library hand blocks above a size back to the system as soon as they are freed.

    glibc otherwise raises that size to 32 MiB as such blocks are freed, and keeps what it is given back in a
    heap with gaps: training then holds about a third more memory than its tensors take.

    Args:
        threshold_bytes: Smallest block that is mapped on its own.

    Returns:
        Whether the C library took it; others than glibc have no such option.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return set_option is not None and bool(set_option(M_MMAP_THRESHOLD, threshold_bytes))
