"""Rows of Parquet and Arrow files, a small batch at a time."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralab.data.sources.faults import FileFault, first_line
from loralab.data.sources.rows import BrokenRow, Row
from loralab.data.sources.streams import SourceFile, read_chunks

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 256
"""Rows that are made Python objects at once."""
PAGE_BYTES = 1 << 20
"""What is read ahead of each column, so that a row group need not lie in memory."""


def read_parquet(file: SourceFile) -> Iterator[Row | BrokenRow]:
    """Yields the rows of a Parquet file.

    Raises:
        FileFault: The file is cut off, broken, or names a column twice.
        OSError: The file cannot be opened or read.
    """
    import pyarrow.parquet as pq

    with (
        _unpacked(file) as path,
        _explained("Parquet"),
        pq.ParquetFile(path, pre_buffer=False, buffer_size=PAGE_BYTES) as table,
    ):
        _check_names(table.schema_arrow.names)
        yield from _rows(table.iter_batches(batch_size=BATCH_ROWS))


def read_arrow(file: SourceFile) -> Iterator[Row | BrokenRow]:
    """Yields the rows of an Arrow IPC file or stream, as Feather and `save_to_disk` write them.

    Raises:
        FileFault: The file is cut off, broken, or names a column twice.
        OSError: The file cannot be opened or read.
    """
    import pyarrow as pa

    with _unpacked(file) as path, _explained("Arrow"), pa.memory_map(str(path)) as mapped:
        is_file = mapped.read(6) == b"ARROW1"
        mapped.seek(0)
        opened: Any = pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)
        with opened as reader:
            _check_names(reader.schema.names)
            if is_file:
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
                yield from _rows(map(_checked, batches))
            else:
                yield from _rows(map(_checked, reader))


@contextmanager
def _unpacked(file: SourceFile) -> Iterator[Path]:
    """Gives the file itself, or a temporary copy without its compression: these kinds need random access."""
    if not file.compression:
        yield file.path
        return
    with tempfile.NamedTemporaryFile(suffix=file.kind) as copy:
        copy.writelines(read_chunks(file))
        copy.flush()
        yield Path(copy.name)


@contextmanager
def _explained(kind: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileFault(f" is no whole {kind} file: {first_line(error)}; copy or write it again.") from None


def _check_names(names: list[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise FileFault(f" names the column {twice[0]!r} twice; rename one of them.")


def _checked(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Returns a batch that can be read without leaving its buffers, which would end the process."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        # Text that is no UTF-8 is a fault of single rows.
        if "UTF8" not in str(error):
            raise
        batch.validate()
    return batch


def _rows(batches: "Iterable[pa.RecordBatch]") -> Iterator[Row | BrokenRow]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            for value in _decode(batch.slice(start, BATCH_ROWS)):
                number += 1
                yield BrokenRow(number, "row", value) if isinstance(value, str) else Row(number, value, "row")


def _decode(batch: "pa.RecordBatch") -> Iterator[dict[str, Any] | str]:
    """Makes dicts of the rows; where that fails it gives the reason for the rows that are to blame."""
    import pyarrow as pa

    try:
        yield from batch.to_pylist(maps_as_pydicts="strict")
    except (pa.ArrowException, ValueError, KeyError, OverflowError) as error:
        # Such as text that is no UTF-8, or a date that Python has no number for.
        if batch.num_rows == 1:
            yield f"a value that cannot be read: {first_line(error)}"
            return
        for place in range(batch.num_rows):
            yield from _decode(batch.slice(place, 1))
