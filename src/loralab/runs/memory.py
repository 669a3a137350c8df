"""How much memory the process uses, now and at its peak, stage by stage."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
        self.can_reset = _reset_peak(device)
        """Whether a stage has a peak of its own; else a peak is the highest since the process began."""

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


def available_memory() -> int:
    """Returns the bytes that the process may still take: what the machine has free, and its control group."""
    free = int(psutil.virtual_memory().available)
    allowed = cgroup_free_bytes(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return free if allowed is None else min(free, allowed)


def cgroup_free_bytes(membership: Path, root: Path) -> int | None:
    """Returns what the limits of control groups (containers, batch systems) leave; None without a limit.

    A limit counts for all groups below, so those above the process's own are read too. Cached files that
    nothing uses give way, so they count as free.

    Args:
        membership: `/proc/self/cgroup`, a line `number:controllers:path` for each hierarchy.
        root: Where the hierarchies are mounted.
    """
    if not membership.is_file():
        return None
    left = []
    for line in membership.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = PurePosixPath(path.strip("/"))
        left += [_group_free_bytes(mount / group, names) for group in (own, *own.parents)]
    return min((each for each in left if each is not None), default=None)


def _group_free_bytes(group: Path, names: tuple[str, str, str]) -> int | None:
    """Returns what one group has left, of files named for its limit, its use, and cached files in its use."""
    limit, used, cached = names
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return None
        taken = int((group / used).read_text())
    except OSError:
        # A container may see the path of its group on the host, but not the group.
        return None
    stat = group / "memory.stat"
    fields = dict(line.split() for line in stat.read_text().splitlines()) if stat.is_file() else {}
    return max(0, int(most) - taken + int(fields.get(cached, 0)))


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


def _reset_peak(device: torch.device) -> bool:
    """Starts the peak anew and says whether that was possible."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        # No Linux, or a container that forbids it: the peak stays that of the process.
        return False
    return True


def _rounded(gib: float) -> float:
    return round(gib, 4)
