"""Rows worked through in chunks, up to the place where they break off."""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TypeVar

from loralab.data.intake import RawRow
from loralab.errors import DataError

CHUNK = 256
SERIAL_CHUNKS = 80
"""Chunks worked on in this process before others are started, which takes seconds."""

Result = TypeVar("Result")


def work_through(
    work: Callable[[list[RawRow]], Result], rows: Iterator[RawRow], num_workers: int | None
) -> Iterator[Result]:
    """Applies `work` to the rows in chunks and in order, in several processes where there are many.

    Raises:
        DataError: The rows break off; every row before that has been worked on.
    """
    broken: list[DataError] = []
    yield from _work_through(work, _in_chunks(rows, broken), num_workers)
    if broken:
        raise broken[0]


def _in_chunks(rows: Iterator[RawRow], broken: list[DataError]) -> Iterator[list[RawRow]]:
    """Cuts rows into chunks; what breaks them off goes to `broken`, so that no chunk under way is lost."""
    chunk: list[RawRow] = []
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
    except DataError as error:
        broken.append(error)
    if chunk:
        yield chunk


def _work_through(
    work: Callable[[list[RawRow]], Result], chunks: Iterator[list[RawRow]], num_workers: int | None
) -> Iterator[Result]:
    if num_workers is None:
        yield from map(work, islice(chunks, SERIAL_CHUNKS))
    following = next(chunks, None)
    if following is None:
        return
    if num_workers is not None and num_workers <= 1:
        yield from map(work, chain([following], chunks))
        return
    from loralab.data.workers import map_chunks  # here, because it imports torch

    yield from map_chunks(work, chain([following], chunks), num_workers)
