"""How much memory the process uses."""

import resource
import sys

import psutil
import torch

GIB = 2**30


def rss_gib() -> float:
    """Resident memory of this process now, in GiB."""
    return float(psutil.Process().memory_info().rss) / GIB


def peak_gib(device: torch.device) -> float:
    """Peak so far in GiB: of allocated GPU memory on a GPU, else of resident memory."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / GIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1 if sys.platform == "darwin" else 1024) / GIB
