"""Prepared examples on disk, memory-mapped: what training reads."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loralab.data.masking import Encoded, Example, make_example
from loralab.data.records import Conversation
from loralab.data.serialization import record_from_json, record_to_json

SCHEMA = pa.schema([
    ("input_ids", pa.list_(pa.int32())),
    ("spans", pa.list_(pa.int32())),
    ("weights", pa.list_(pa.float32())),
    ("length", pa.int32()),
    ("supervised", pa.int32()),
    ("source", pa.int16()),
    ("row", pa.int64()),
    ("file", pa.string()),
    ("record", pa.large_string()),
])  # fmt: skip
"""One row per example; `spans` holds the start and end of each token range to learn, one after another."""


def example_columns(
    encoded: Sequence[Encoded], conversations: Sequence[Conversation], sources: Sequence[int]
) -> pa.RecordBatch:
    """Lays examples out as the columns of `SCHEMA`."""
    columns: list[list[Any]] = [
        [item.input_ids for item in encoded],
        [[edge for start, end, _ in item.spans for edge in (start, end)] for item in encoded],
        [[weight for _, _, weight in item.spans] for item in encoded],
        [len(item.input_ids) for item in encoded],
        [item.num_supervised for item in encoded],
        list(sources),
        [conversation.row for conversation in conversations],
        [conversation.source for conversation in conversations],
        [record_to_json(conversation) for conversation in conversations],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA)


class ExampleStore(Sequence[Example]):
    """The examples of one split; an example is built when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Maps the file."""
        self.path = path
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        sizes = [self._reader.get_batch(i).num_rows for i in range(self._reader.num_record_batches)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.lengths: NDArray[np.int64] = self._numbers("length")
        """Tokens of each example."""
        self.supervised: NDArray[np.int64] = self._numbers("supervised")
        """Tokens of each example that are learned."""
        self.sources: NDArray[np.int64] = self._numbers("source")
        """Number of each example's source."""

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    def __reduce__(self) -> tuple[type["ExampleStore"], tuple[Path]]:
        """Maps the file again in another process."""
        return ExampleStore, (self.path,)

    def __iter__(self) -> Iterator[Example]:
        """Yields every example in order."""
        return (self[number] for number in range(len(self)))

    @overload
    def __getitem__(self, number: int) -> Example: ...
    @overload
    def __getitem__(self, number: slice) -> list[Example]: ...
    def __getitem__(self, number: int | slice) -> Example | list[Example]:
        """Builds one example, or a list of them."""
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        batch = int(np.searchsorted(self._starts, number, side="right")) - 1
        columns = self._reader.get_batch(batch)
        return build_example(columns, int(number - self._starts[batch]))

    def _numbers(self, name: str) -> NDArray[np.int64]:
        place = SCHEMA.get_field_index(name)
        batches = [self._reader.get_batch(i).column(place) for i in range(self._reader.num_record_batches)]
        parts = [column.to_numpy().astype(np.int64) for column in batches]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def build_example(columns: pa.RecordBatch, place: int) -> Example:
    """Builds the example at one place of a batch of columns."""

    def value(name: str) -> Any:
        """Returns what a column of `SCHEMA` holds for the example."""
        return columns.column(SCHEMA.get_field_index(name))[place].as_py()

    edges = value("spans")
    spans = tuple(zip(edges[::2], edges[1::2], value("weights"), strict=True))
    conversation = record_from_json(value("record"), value("file"), value("row"))
    assert isinstance(conversation, Conversation)
    return make_example(Encoded(value("input_ids"), spans), conversation, value("source"))


def lengths_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Tokens of each example, without building the examples of a store."""
    if isinstance(examples, ExampleStore):
        return examples.lengths
    return np.array([len(example.input_ids) for example in examples], np.int64)


def supervised_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Tokens to learn of each example, without building the examples of a store."""
    if isinstance(examples, ExampleStore):
        return examples.supervised
    return np.array([example.num_supervised for example in examples], np.int64)
