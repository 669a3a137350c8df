"""Checked records on disk: the working store between reading and tokenizing."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loralab.data.records import Record
from loralab.data.serialization import record_from_json

ROWS_PER_BATCH = 256
"""As many as are worked on at once, so that a batch is read about once."""

_SCHEMA = pa.schema([("record", pa.large_string()), ("value", pa.string()), ("key", pa.binary(16))])


class CorpusWriter:
    """Appends records to a file; the numbers of each row stay in memory, 12 bytes a row."""

    def __init__(self, path: Path) -> None:
        """Opens the file for writing."""
        self.path = path
        self.files: dict[str, int] = {}
        self._units: list[str] = []
        self._sources, self._files, self._rows = array("h"), array("i"), array("q")
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, _SCHEMA)
        self._waiting: list[tuple[str, str | None, bytes]] = []

    def append(self, record: str, key: bytes, source: int, place: tuple[str, int], value: str | None) -> None:
        """Adds one record, given as JSON, with the number of its source and its file and row."""
        file, row = place
        if file not in self.files:
            self.files[file] = len(self.files)
            self._units.append(record_from_json(record, file, row).unit)
        self._sources.append(source)
        self._files.append(self.files[file])
        self._rows.append(row)
        self._waiting.append((record, value, key))
        if len(self._waiting) == ROWS_PER_BATCH:
            self._flush()

    def __len__(self) -> int:
        """Records so far."""
        return len(self._rows)

    def place(self, number: int) -> str:
        """Where the row of a number stands."""
        file = self._files[number]
        return f"{list(self.files)[file]} {self._units[file]} {self._rows[number]}"

    def close(self) -> "Corpus":
        """Finishes the file and opens it for reading."""
        self._flush()
        self._writer.close()
        self._sink.close()
        columns = (np.array(self._sources), np.array(self._files), np.array(self._rows))
        return Corpus(self.path, list(self.files), *columns)

    def _flush(self) -> None:
        columns = list(zip(*self._waiting, strict=True)) if self._waiting else []
        if columns:
            arrays = [pa.array(c, field.type) for c, field in zip(columns, _SCHEMA, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
        self._waiting.clear()


class Corpus:
    """The records of a corpus file; only the rows that are asked for come into memory."""

    def __init__(
        self,
        path: Path,
        files: Sequence[str],
        sources: NDArray[np.int16],
        file_numbers: NDArray[np.int32],
        rows: NDArray[np.int64],
    ) -> None:
        """Opens the file."""
        self.path, self.files = path, files
        self.sources, self.file_numbers, self.rows = sources, file_numbers, rows
        # Read, not mapped: each row is wanted once, and mapped pages would stay in the process.
        self._reader = pa.ipc.open_file(pa.OSFile(str(path)))

    def __len__(self) -> int:
        """Number of records."""
        return len(self.rows)

    def __reduce__(self) -> tuple[type["Corpus"], tuple[object, ...]]:
        """Opens the file again in another process."""
        return Corpus, (self.path, self.files, self.sources, self.file_numbers, self.rows)

    def records(self, numbers: NDArray[np.int64]) -> list[Record]:
        """The records of the given numbers, in that order."""
        texts: list[str] = [""] * len(numbers)
        # Batch by batch: taking from the column as a whole would copy all of it.
        batches = numbers // ROWS_PER_BATCH
        for batch in np.unique(batches):
            places = np.flatnonzero(batches == batch)
            column = self._reader.get_batch(int(batch)).column(0)
            taken = column.take(pa.array(numbers[places] % ROWS_PER_BATCH)).to_pylist()
            for place, text in zip(places, taken, strict=True):
                texts[place] = text
        return [
            record_from_json(text, self.files[self.file_numbers[number]], int(self.rows[number]))
            for text, number in zip(texts, numbers, strict=True)
        ]

    def place(self, number: int) -> str:
        """Where the row of a number stands."""
        record = self.records(np.array([number]))[0]
        return f"{record.source} {record.place}"

    def stream(self, numbers: NDArray[np.int64]) -> Iterator[Record]:
        """Yields the records of the given numbers, a batch in memory at a time."""
        for start in range(0, len(numbers), ROWS_PER_BATCH):
            yield from self.records(numbers[start : start + ROWS_PER_BATCH])

    def values(self) -> list[str]:
        """What the field `data.split.by` holds in every row."""
        return self._column(1)

    def keys(self) -> list[bytes]:
        """The content hash of every row."""
        return self._column(2)

    def _column(self, place: int) -> list[Any]:
        batches = map(self._reader.get_batch, range(self._reader.num_record_batches))
        return [value for batch in batches for value in batch.column(place).to_pylist()]
