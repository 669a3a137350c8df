"""What a run was made of: versions, code, data, hardware."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

LIBRARIES = (
    "loralab",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "lightning",
    "hydra-core",
    "tokenizers",
    "accelerate",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a run."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def git_state(folder: Path) -> dict[str, Any]:
    """Commit of the checkout that holds `folder` and a hash of what differs from it; empty outside git."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(command, capture_output=True, check=True, text=True, errors="replace").stdout

    try:
        commit, diff = git("rev-parse", "HEAD").strip(), git("diff", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return {}
    diff_sha256 = hashlib.sha256(diff.encode()).hexdigest() if diff else None
    return {"commit": commit, "dirty": bool(diff), "diff_sha256": diff_sha256}


def hardware() -> dict[str, Any]:
    """Processor, memory and GPU of this machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpu,
    }


def base_manifest(run_id: str, now: datetime.datetime) -> dict[str, Any]:
    """The part of a manifest that every command shares."""
    return {
        "run_id": run_id,
        "created": now.astimezone().isoformat(timespec="seconds"),
        "versions": versions(),
        "git": git_state(Path(__file__).parent),
        "hardware": hardware(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
