"""Work on chunks in several processes, in order and with bounded memory."""

import contextlib
import gc
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from loralab.errors import DataError

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

DEAD_WORKER = "DataLoader worker (pid"
"""How PyTorch begins what it says of a worker that is no more."""
SERIAL_CHUNKS = 2
"""Chunks worked on before processes are started: for few rows, starting them takes longer than the work."""


class _Job(Dataset[Any]):
    """A function as a data set whose index is the chunk itself."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __getitem__(self, chunk: Any) -> Any:
        return self.function(chunk)


def map_chunks(
    function: Callable[[Chunk], Result], chunks: Iterable[Chunk], num_workers: int | None
) -> Iterator[Result]:
    """Applies a function to chunks, in order, in as many processes as it pays to start.

    Args:
        function: Must return its faults as values; what it returns must pickle.
        chunks: Read lazily, a few at a time.
        num_workers: Processes; None takes the cores of this process, 0 or 1 none but this one.
    """
    # Rows make millions of short-lived objects; each full collection would walk all loaded libraries too.
    gc.freeze()
    try:
        yield from _map(function, iter(chunks), num_workers)
    finally:
        gc.unfreeze()


def _map(
    function: Callable[[Chunk], Result], rest: Iterator[Chunk], num_workers: int | None
) -> Iterator[Result]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = cores if num_workers is None else num_workers
    if workers <= 1:
        yield from map(function, rest)
        return
    if num_workers is None:
        yield from map(function, islice(rest, SERIAL_CHUNKS))
    following = list(islice(rest, 1))
    if following:
        loader = DataLoader(
            _Job(function),
            batch_size=None,
            sampler=chain(following, rest),
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=_become_worker,
            multiprocessing_context=_start_method(),
            # Its own generator: an iterator otherwise draws its seed from the global one.
            generator=torch.Generator(),
        )
        yield from _of_living_workers(loader, workers)


def _of_living_workers(loader: "DataLoader[Any]", num_workers: int) -> Iterator[Any]:
    results = iter(loader)
    while True:
        # Only the wait for a worker: an error of whoever takes the result is another matter.
        with explain_dead_worker(num_workers):
            try:
                result = next(results)
            except StopIteration:
                return
        yield result


@contextlib.contextmanager
def explain_dead_worker(num_workers: int | None) -> Iterator[None]:
    """Says in words of ours that a worker process was killed.

    PyTorch notices by a signal, which may come in the middle of anything that this process does.

    Args:
        num_workers: As in `map_chunks`.

    Raises:
        DataError: A worker was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(DEAD_WORKER):
            raise
        found = re.search(r"killed by signal: \w[\w ]*|exited unexpectedly", str(error))
        fewer = "with fewer processes" if num_workers is None else f"with fewer than {num_workers} processes"
        raise DataError(
            f"a worker process of data preparation was lost ({found[0] if found else 'no reason given'}), as "
            f"happens where memory runs out. Nothing was written: begin again {fewer}, such as "
            "data.num_workers=1."
        ) from error


def chunked(rows: Iterable[Chunk], size: int) -> Iterator[list[Chunk]]:
    """Cuts a stream into lists of `size`, the last one shorter; also where the stream breaks off.

    Raises:
        DataError: The stream raised it, after all that it gave.
    """
    chunk: list[Chunk] = []
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except DataError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _start_method() -> str:
    """A fork starts at once with all that is loaded; macOS, whose libraries do not survive one, spawns."""
    can_fork = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    return "fork" if can_fork else "spawn"


def _unchanged(result: Any) -> Any:
    return result


def _become_worker(number: int) -> None:
    # Each process tokenizes on its own core; threads of several processes would fight over them.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
