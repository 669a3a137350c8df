"""Prepared examples on disk, memory-mapped: what training reads."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loralab.data.collate import common_prefix
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
NUMBERS = ("length", "supervised", "source")
"""Columns that are kept apart as well."""


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


@contextmanager
def store_writer(path: Path) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Opens a store for writing and yields what adds a batch with the columns of `SCHEMA`.

    The numbers that plans are made of lie in a file of their own beside the examples: to look at the length
    of every example then touches no page of their texts.

    Args:
        path: The file of the examples, ending in `.arrow`.

    Raises:
        OSError: The disk does not take it.
    """
    numbers: list[NDArray[np.int32]] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:

        def write(batch: pa.RecordBatch) -> None:
            """Appends a batch and keeps its numbers."""
            columns = [batch.column(name).to_numpy() for name in NUMBERS]
            numbers.append(np.stack([np.full(batch.num_rows, len(numbers)), *columns]).astype(np.int32))
            writer.write_batch(batch)

        yield write
    empty = np.zeros((1 + len(NUMBERS), 0), np.int32)
    np.save(_numbers_path(path), np.concatenate([empty, *numbers], axis=1))


class ExampleStore(Sequence[Example]):
    """The examples of one split; an example is built when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Maps the file.

        Raises:
            OSError: A file is missing.
            ValueError, EOFError: A file is cut off.
        """
        self.path = path
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        numbers: NDArray[np.int64] = np.load(_numbers_path(path)).astype(np.int64)
        self._starts = np.flatnonzero(np.diff(numbers[0], prepend=-1))
        self.lengths: NDArray[np.int64] = numbers[1]
        """Tokens of each example."""
        self.supervised: NDArray[np.int64] = numbers[2]
        """Tokens of each example that are learned."""
        self.sources: NDArray[np.int64] = numbers[3]
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

    def common_prefix(self) -> int:
        """Returns how many tokens several examples all begin with; reads the tokens of each."""
        if len(self) <= 1:
            return 0
        shared: NDArray[np.int32] | None = None
        for number in range(self._reader.num_record_batches):
            ids = self._reader.get_batch(number).column(SCHEMA.get_field_index("input_ids"))
            values, offsets = ids.values.to_numpy(), ids.offsets.to_numpy()
            starts, length = offsets[:-1, None], int(np.diff(offsets).min())
            shared = values[offsets[0] :] if shared is None else shared
            shared = shared[:length]
            differs = (values[starts + np.arange(len(shared))] != shared).any(axis=0)
            shared = shared[: int(np.argmax(differs)) if differs.any() else None]
        return 0 if shared is None else len(shared)

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


def _numbers_path(path: Path) -> Path:
    return path.with_suffix(".npy")


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


def common_prefix_of(examples: Sequence[Example]) -> int:
    """Tokens that all examples begin with, without building the examples of a store."""
    return examples.common_prefix() if isinstance(examples, ExampleStore) else common_prefix(examples)


def supervised_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Tokens to learn of each example, without building the examples of a store."""
    if isinstance(examples, ExampleStore):
        return examples.supervised
    return np.array([example.num_supervised for example in examples], np.int64)
