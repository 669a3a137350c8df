"""Bytes and text of a file in chunks, decompressed and decoded on the way."""

import codecs
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from encodings.aliases import aliases
from itertools import chain
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
    "Feather version 1": "is a Feather file of version 1; save it again as version 2.",
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
    with _open(file) as read:
        while True:
            try:
                chunk = read(CHUNK_BYTES)
            except (OSError, EOFError, zlib.error) as error:
                if not file.compression:
                    raise
                # Arrow says "Truncated" where gzip ends with an EOFError.
                if isinstance(error, EOFError) or "truncated" in str(error).lower():
                    fault = " is cut off: its compressed data end too early; copy or download it again."
                    raise FileFault(fault) from None
                raise FileFault(f" has broken {file.compression} data: {first_line(error)}.") from None
            if not chunk:
                return
            yield chunk


def read_text(file: SourceFile) -> Iterator[str]:
    """Yields the text of a file in chunks of any size, without its byte-order mark.

    Raises:
        FileFault: A byte does not belong to the encoding; the text before it was yielded.
        OSError: The file cannot be opened or read.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig" if is_utf8(file.encoding) else file.encoding)()
    is_first, line = True, 1
    for chunk in chain(read_decodable_chunks(file), (b"",)):
        try:
            text, fault = decoder.decode(chunk, final=not chunk), ""
        except UnicodeDecodeError as error:
            # The decoder puts what it kept of the chunk before in front of this one.
            good = max(0, error.start - (len(error.object) - len(chunk)))
            decoder.errors = "replace"
            text = decoder.decode(chunk[:good])
            fault = explain_encoding(error, file.encoding, line + text.count("\n"))
        except UnicodeError as error:
            # Such as UTF-16 without the mark that tells its byte order.
            raise FileFault(f" is not {file.encoding}: {first_line(error)}.") from None
        yield text.removeprefix("\ufeff") if is_first else text
        if fault:
            raise FileFault(f" {fault}.")
        is_first, line = is_first and not text, line + text.count("\n")


def read_decodable_chunks(file: SourceFile) -> Iterator[bytes]:
    """Yields the bytes of a text file as `read_chunks` does.

    Raises:
        FileFault: The first bytes show another encoding than the one named, or as in `read_chunks`.
        OSError: The file cannot be opened or read.
    """
    for number, chunk in enumerate(read_chunks(file)):
        if number == 0 and is_utf8(file.encoding):
            found = _find_wide_encoding(chunk)
            if found:
                raise FileFault(
                    f" is {found.upper()}, not UTF-8; set data.encoding={found}, or save it again as UTF-8."
                )
        yield chunk


def is_utf8(encoding: str) -> bool:
    """Whether an encoding is UTF-8 with or without a byte-order mark."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def explain_encoding(error: UnicodeDecodeError, encoding: str, line: int | None = None) -> str:
    """Names the byte that does not belong to the encoding, and the way out.

    Args:
        error: What the decoder says.
        encoding: The encoding that was tried.
        line: The line of the byte; None where the message names it already.
    """
    name, byte = "UTF-8" if is_utf8(encoding) else encoding, error.object[error.start]
    fix = "save the file again as UTF-8, or name its encoding, such as data.encoding=latin-1"
    if not is_utf8(encoding):
        fix = "name the file's encoding with data.encoding=..."
    place = "" if line is None else f" in line {line}"
    return f"is not {name}: byte 0x{byte:02x}{place}; {fix}"


def check_encoding(encoding: str) -> None:
    """Refuses an encoding that Python does not know.

    Raises:
        DataError: There is no text encoding of this name.
    """
    try:
        "a".encode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError):
        known = {name.replace("_", "-") for name in {*aliases, *aliases.values()}}
        raise DataError(
            f"data.encoding={encoding!r} is unknown.{did_you_mean(encoding.lower(), sorted(known))} "
            "Allowed: the names of Python's text encodings, such as utf-8, utf-16, latin-1, cp1252."
        ) from None


def hash_file(path: Path, key: str = "data.path") -> str:
    """Computes the SHA-256 of a file in hexadecimal, read in chunks.

    Args:
        path: The file.
        key: The config key that names it, for error messages.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise to_data_error(key, path, explain_os_error(path, error)) from None


@contextmanager
def _open(file: SourceFile) -> Iterator[Callable[[int], bytes]]:
    """Opens a file and gives the function that reads the next bytes, as far as they are there yet."""
    if file.compression == "zstd":
        import pyarrow as pa

        with pa.input_stream(str(file.path), compression="zstd") as stream:
            yield stream.read
    elif file.compression == "gzip":
        # Unlike Arrow's stream this one gives everything that stands before a cut.
        with gzip.open(file.path, "rb") as unpacked:
            yield unpacked.read1
    else:
        with file.path.open("rb", buffering=0) as raw:
            yield lambda size: raw.read(size) or b""


def _find_wide_encoding(head: bytes) -> str:
    """Names UTF-16 or UTF-32 where the first bytes show it, else gives an empty string."""
    found = json.detect_encoding(head) if any(head[:4]) else "utf-8"
    return "" if found in ("utf-8", "utf-8-sig") else found
