"""The allocator of a CPU: that of GNU's C library keeps gaps, several times what tensors take."""

import ctypes
import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path

PRELOAD, CHOICE, SYSTEM = "LD_PRELOAD", "LORALAB_ALLOCATOR", "system"
"""What the loader reads; what keeps the C library's allocator, and its value."""
LIBRARIES = ("libtbbmalloc.so.2", "libtbbmalloc_proxy.so.2")
"""oneTBB's allocator, and what puts it in the place of malloc; the second needs the first."""
KNOWN = ("tbbmalloc", "jemalloc", "tcmalloc", "mimalloc")
"""Allocators that give blocks of a size back to requests of that size."""
CLEAN_ALL_BUFFERS = 0
"""What oneTBB calls giving everything back (`TBBMALLOC_CLEAN_ALL_BUFFERS`)."""
GPU_DRIVER = Path("/dev/nvidiactl")


def preload() -> None:
    """Starts this command anew with oneTBB's allocator, once, before anything large is imported.

    With glibc's, the heap of a step grows to several times its tensors (`benchmarks/memory.py`). Nothing
    happens where there is a GPU, which holds the tensors; where the user has preloaded a library; where
    `LORALAB_ALLOCATOR=system`; where the package is absent; and where a command runs inside another program,
    which would be lost.
    """
    is_own_program = sys.argv[0] in sys.orig_argv and "torch" not in sys.modules
    libraries = find_libraries() if is_own_program else []
    if libraries and is_wanted(os.environ):
        environment = {**os.environ, PRELOAD: ":".join(map(str, libraries))}
        os.execve(sys.executable, sys.orig_argv, environment)


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Says whether the allocator is to be replaced."""
    is_left_to_us = not environment.get(PRELOAD) and environment.get(CHOICE) != SYSTEM
    return is_left_to_us and not GPU_DRIVER.exists()


def is_replaced(environment: Mapping[str, str]) -> bool:
    """Says whether an allocator without such gaps is in place, ours or one that the user has preloaded."""
    return any(name in environment.get(PRELOAD, "") for name in KNOWN)


def give_back() -> None:
    """Gives memory that is free back to the system; allocators keep it for the next request otherwise."""
    if sys.platform != "linux":
        return
    loaded = ctypes.CDLL(None)
    if (command := getattr(loaded, "scalable_allocation_command", None)) is not None:
        command(CLEAN_ALL_BUFFERS, None)
    elif (trim := getattr(loaded, "malloc_trim", None)) is not None:
        trim(0)


def find_libraries() -> list[Path]:
    """Returns the files of oneTBB's allocator, in the order of loading; nothing where they are absent."""
    if sys.platform != "linux":
        return []
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    by_name = {file.name: Path(str(file.locate())).resolve() for file in files if file.name in LIBRARIES}
    found = [by_name[name] for name in LIBRARIES if name in by_name and by_name[name].is_file()]
    return found if len(found) == len(LIBRARIES) else []
