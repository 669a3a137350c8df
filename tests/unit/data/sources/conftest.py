"""Files to read, and the two ways in which reading ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from loralab.data.sources import Row, read_rows
from loralab.errors import DataError

SUFFIX_CODECS = {".gz": "gzip", ".zst": "zstd"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Writes a file below the test's folder, compressed as its name says."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content.encode() if isinstance(content, str) else content
        if path.suffix in SUFFIX_CODECS:
            with pa.output_stream(str(path), compression=SUFFIX_CODECS[path.suffix]) as stream:
                stream.write(content)
        else:
            path.write_bytes(content)
        return path

    return write


@pytest.fixture
def read() -> Callable[..., tuple[list[Any], str]]:
    """Reads a file to its end: what was yielded, broken rows as `(place, reason)`, and the fault if any."""

    def read(path: Path, encoding: str = "utf-8", key: str = "data.path") -> tuple[list[Any], str]:
        rows: list[Any] = []
        try:
            for row in read_rows(path, key, encoding):
                rows.append(row.fields if isinstance(row, Row) else (row.place, row.reason))
        except DataError as error:
            message = str(error)
            assert "\n" not in message
            return rows, message.removeprefix(f"{key}={str(path)!r}").strip()
        return rows, ""

    return read
