"""Measurements that run in a process of their own, and the memory that they take."""

import ctypes
import gc
import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import psutil

SAMPLE_S = 0.5


class PeakMemory:
    """Samples the resident memory of this process and its children, shared pages counted once."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self.gib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
        """Begins to sample."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Samples once more, for what was over sooner than the first sample, and stops."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._stop.wait(SAMPLE_S)
            self.gib = max(self.gib, resident_gib())


def resident_gib() -> float:
    """Returns the resident memory of this process and its children now, shared pages counted once."""
    this, total = psutil.Process(), 0
    for process in [this, *this.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, AttributeError):
            continue
    return float(total / 2**30)


class HeapFigures(ctypes.Structure):
    """What `mallinfo2` of GNU's C library returns (man 3 mallinfo)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
            "keepcost",
        )
    )  # fmt: skip


def bytes_in_use() -> int:
    """Returns the bytes that the C library has handed out and not got back."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = HeapFigures
    figures = mallinfo()
    return int(figures.uordblks + figures.hblkhd)


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a measurement in a process of its own, which starts with nothing loaded."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(function, arguments, sender))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        raise SystemExit(f"{function.__name__} failed") from None
    process.join()
    return result


def send(function: Callable[..., Any], arguments: tuple[Any, ...], sender: Any) -> None:
    """Hands a result to the waiting process."""
    sender.send(function(*arguments))
