"""Bytes and text of a file in chunks, decompressed and decoded on the way."""

import codecs
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from encodings.aliases import aliases
from pathlib import Path

from loralab.data.sources.faults import FileFault, explain_os_error, first_line, to_data_error
from loralab.errors import DataError, did_you_mean

CHUNK_BYTES = 1 << 16
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Extensions that may follow the extension of the kind."""
EMPTY = " is empty; at least one row is needed."

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"FEA1": "Feather version 1",
    b"PK\x03\x04": "ZIP",
    b"version https://git-lfs": "Git LFS",
}
_MAGIC_OF_KIND = {".parquet": "Parquet", ".arrow": "Arrow", ".feather": "Arrow"}
_FIXES = {
    "gzip": "is compressed with gzip; add .gz to its name.",
    "zstd": "is compressed with zstd; add .zst to its name.",
    "Parquet": "is a Parquet file; name it .parquet.",
    "Arrow": "is an Arrow file; name it .arrow.",
    "Feather version 1": "is a Feather file of version 1, which is no longer read; save it again as version 2.",
    "ZIP": "is a ZIP archive; unpack it and give a file in it.",
    "Git LFS": "is a Git LFS pointer without the data; fetch the data with `git lfs pull`.",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file and how it is to be read."""

    path: Path
    """Where it lies."""
    kind: str
    """The extension that names the kind, such as `.jsonl`."""
    compression: str
    """`gzip`, `zstd`, or empty where it is not compressed."""
    encoding: str
    """Text encoding, as Python names it."""


def split_extension(path: Path) -> tuple[str, str]:
    """Returns the kind and the compression that a file's name tells, such as `.jsonl` and `gzip`."""
    compression = COMPRESSIONS.get(path.suffix.lower(), "")
    kind = Path(path.stem).suffix if compression else path.suffix
    return kind.lower(), compression


def check_start(file: SourceFile) -> None:
    """Refuses a file whose first bytes show that it is something else than its name says.

    Raises:
        FileFault: It is empty, of another kind, or compressed otherwise.
        OSError: It cannot be opened.
    """
    if not file.path.is_file():
        # The first bytes of a pipe can be had only once.
        return
    with file.path.open("rb") as opened:
        head = opened.read(max(map(len, _MAGIC)))
    if not head:
        raise FileFault(EMPTY)
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
    if found and found != (file.compression or _MAGIC_OF_KIND.get(file.kind)):
        raise FileFault(f" {_FIXES[found]}")
    if file.compression and not found:
        raise FileFault(f" is not compressed with {file.compression}; take {file.path.suffix} off its name.")


def read_chunks(file: SourceFile) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file, in chunks of any size.

    Raises:
        FileFault: The compressed data are broken or cut off; what came before was yielded.
        OSError: The file cannot be opened or read.
    """
    with ExitStack() as stack:
        if not file.compression:
            yield from iter(lambda: raw.read(CHUNK_BYTES), b"") if (raw := _open(file, stack)) else ()
            return
        read = _decompressor(file, stack)
        while True:
            try:
                chunk = read(CHUNK_BYTES)
            except EOFError:
                raise FileFault(_cut_off(file)) from None
            except (OSError, zlib.error) as error:
                if "truncated" in str(error).lower():
                    raise FileFault(_cut_off(file)) from None
                raise FileFault(f" has broken {file.compression} data: {first_line(error)}.") from None
            if not chunk:
                return
            yield chunk
