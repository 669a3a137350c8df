"""Reading weight files tensor by tensor, so that loading holds little more than the model it builds."""

import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import modeling_utils

from loralab.runs.allocator import give_back

SAFE_OPEN = "safe_open"
"""What transformers opens weight files with, by its name there."""
LARGE_BYTES = 2**16
"""Tensors from here on lie in pages of their own, which the system takes back whole."""
TRIM_BYTES = 2**25
"""How much is read before the allocator gives back what quantizing has freed."""
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""Names of dtypes in safetensors files."""


class ReadCounter:
    """Gives freed memory back to the system each time so much was read."""

    def __init__(self) -> None:
        """Starts at nothing read."""
        self._num_bytes = 0

    def add(self, num_bytes: int) -> None:
        """Counts what was read."""
        self._num_bytes += num_bytes
        if self._num_bytes >= TRIM_BYTES:
            self._num_bytes = 0
            give_back()


class ShardTensor:
    """A tensor that lies in a file until it is indexed, as a slice of `safetensors`."""

    def __init__(self, path: Path, start: int, entry: dict[str, Any], counter: ReadCounter) -> None:
        """Remembers where the tensor lies.

        Args:
            path: A safetensors file.
            start: Where its tensors begin, in bytes.
            entry: What the header says of this one: `dtype`, `shape`, `data_offsets`.
            counter: Told of what is read.
        """
        self._path = path
        self._start = start
        self._entry = entry
        self._counter = counter

    def get_dtype(self) -> str:
        """Returns the dtype as safetensors names it."""
        return str(self._entry["dtype"])

    def get_shape(self) -> list[int]:
        """Returns the shape."""
        return list(self._entry["shape"])

    def __getitem__(self, index: Any) -> Tensor:
        """Reads the tensor and indexes it."""
        begin, end = self._entry["data_offsets"]
        num_bytes = end - begin
        self._counter.add(num_bytes)
        # The allocator of C keeps freed blocks between those in use; a map of its own is given back at once.
        memory = _own_pages(num_bytes) if num_bytes >= LARGE_BYTES else bytearray(num_bytes)
        if num_bytes == 0:
            return torch.empty(self.get_shape(), dtype=DTYPES[self.get_dtype()])[index]
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._start + begin)
            _fill(file, memoryview(memory))
        flat = torch.frombuffer(memory, dtype=DTYPES[self.get_dtype()])
        return flat.reshape(self.get_shape())[index]


class ShardFile:
    """A safetensors file whose tensors are read one at a time; stands in for `safetensors.safe_open`."""

    def __init__(self, path: str | Path, counter: ReadCounter) -> None:
        """Reads the header of a file that safetensors has found sound."""
        self._counter = counter
        self._path = Path(path)
        with self._path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self._entries: dict[str, dict[str, Any]] = json.loads(file.read(length))
        self._entries.pop("__metadata__", None)
        self._start = 8 + length

    @property
    def is_readable(self) -> bool:
        """Whether every dtype in it is one that we know."""
        return all(entry["dtype"] in DTYPES for entry in self._entries.values())

    def keys(self) -> list[str]:
        """Returns the names of the tensors."""
        return list(self._entries)

    def get_slice(self, name: str) -> ShardTensor:
        """Returns a tensor that is not read yet."""
        return ShardTensor(self._path, self._start, self._entries[name], self._counter)

    def __exit__(self, *_: object) -> None:
        """Does nothing: no file stays open."""


@contextmanager
def reading_tensor_by_tensor() -> Iterator[None]:
    """Lets transformers read weights so, instead of mapping whole files into memory until loading ends.

    Pages of a mapped file count as resident memory, so that quantizing a model on a CPU would show a peak of
    its full size, and the model itself would hold whole files for the few tensors that stay unquantized.
    """
    original, counter = getattr(modeling_utils, SAFE_OPEN), ReadCounter()

    def open_shard(path: str, *args: Any, **kwargs: Any) -> Any:
        """Checks the file as safetensors does, then reads it in our way where transformers would map it."""
        checked = original(path, *args, **kwargs)
        if kwargs.get("backend") != "mmap":
            return checked
        shard = ShardFile(path, counter)
        return shard if shard.is_readable else checked

    setattr(modeling_utils, SAFE_OPEN, open_shard)
    try:
        yield
    finally:
        setattr(modeling_utils, SAFE_OPEN, original)
        give_back()


def _own_pages(num_bytes: int) -> mmap.mmap:
    """Maps memory of this process alone; the default of Python would share it with children."""
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, num_bytes)


def _fill(file: Any, memory: memoryview) -> None:
    """Reads until the memory is full; one call reads 2 GiB at most."""
    at = 0
    while at < len(memory):
        count = file.readinto(memory[at:])
        if not count:
            raise OSError("the file ends before its last tensor")
        at += count
