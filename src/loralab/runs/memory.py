"""How much memory the process uses, now and at its peak, stage by stage."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

GIB = 2**30
RESET_PEAK = "5"
"""What Linux takes in `clear_refs` to start the peak of resident memory anew (man 5 proc)."""


@dataclass(frozen=True)
class MemoryReading:
    """Memory in one stage of a run, in GiB."""

    stage: str
    """What the run was doing: baseline, loaded, adapted, first_step, steady or evaluation."""
    allocated_gib: float | None
    """Tensors on the GPU at the end of the stage; None on a CPU."""
    reserved_gib: float | None
    """What PyTorch holds of the GPU then, gaps and caches included; None on a CPU."""
    peak_gib: float
    """Most during the stage: of tensors on a GPU, else of resident memory."""
    resident_gib: float
    """Resident memory of the process at the end of the stage."""


class MemoryMeter:
    """Reads the memory of this process stage by stage; a new one starts a new peak.

    Where the operating system cannot start a peak anew (all but Linux), peaks on a CPU are those since
    the process began.
    """

    def __init__(self, device: torch.device) -> None:
        """Starts the first stage."""
        self.device = device
        self.readings: list[MemoryReading] = []
        _reset_peak(device)

    @property
    def peak_gib(self) -> float:
        """Most so far in GiB, over all stages."""
        return max([_peak_gib(self.device), *(reading.peak_gib for reading in self.readings)])

    def mark(self, stage: str) -> MemoryReading:
        """Ends a stage and starts the next; each mark is a reading of its own."""
        on_gpu = self.device.type == "cuda"
        reading = MemoryReading(
            stage=stage,
            allocated_gib=_rounded(torch.cuda.memory_allocated(self.device) / GIB) if on_gpu else None,
            reserved_gib=_rounded(torch.cuda.memory_reserved(self.device) / GIB) if on_gpu else None,
            peak_gib=_rounded(_peak_gib(self.device)),
            resident_gib=_rounded(rss_gib()),
        )
        self.readings.append(reading)
        _reset_peak(self.device)
        return reading


def rss_gib() -> float:
    """Resident memory of this process now, in GiB."""
    return float(psutil.Process().memory_info().rss) / GIB


def _peak_gib(device: torch.device) -> float:
    """Peak since it was last reset: of allocated GPU memory on a GPU, else of resident memory."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / GIB
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) * 1024 / GIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1 if sys.platform == "darwin" else 1024) / GIB


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        # No Linux, or a container that forbids it: the peak stays that of the process.
        return


def _rounded(gib: float) -> float:
    return round(gib, 4)
