"""From a file on disk to raw rows, as a stream; one reader per file extension."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loralab.data.sources.columnar import read_arrow, read_parquet
from loralab.data.sources.delimited import read_delimited
from loralab.data.sources.faults import FileFault, explain_os_error, to_data_error
from loralab.data.sources.json_documents import read_json
from loralab.data.sources.json_lines import read_json_lines
from loralab.data.sources.rows import BrokenRow, Row
from loralab.data.sources.streams import (
    COMPRESSIONS,
    SourceFile,
    check_encoding,
    check_start,
    split_extension,
)
from loralab.errors import did_you_mean

Reader = Callable[[SourceFile], Iterator[Row | BrokenRow]]

READERS: dict[str, Reader] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}
"""The reader of each file extension."""


def read_rows(path: Path, key: str = "data.path", encoding: str = "utf-8") -> Iterator[Row | BrokenRow]:
    """Reads the rows of a data file one after another, in order, without holding more than a few.

    Args:
        path: A file of one of the kinds in `READERS`; .gz or .zst may follow its extension.
        key: The config key that names the file, for error messages.
        encoding: Text encoding of the file; UTF-8 may begin with a byte-order mark.

    Raises:
        DataError: The file is missing, unreadable, empty, broken, or of an unknown kind. Rows that were
            read before a fault in the middle of the file have been yielded.
    """
    has_rows = False
    with _explained(path, key):
        file = _open(path, encoding)
        for row in READERS[file.kind](file):
            has_rows = True
            yield row
        if not has_rows:
            raise FileFault(" has no rows; at least one is needed.")


def check_file(path: Path, key: str = "data.path", encoding: str = "utf-8") -> None:
    """Looks whether a file can be read, as far as its name and its first bytes tell.

    Args:
        path: A file of one of the kinds in `READERS`.
        key: The config key that names the file, for error messages.
        encoding: Text encoding of the file.

    Raises:
        DataError: The file is missing, closed, empty, of an unknown kind, or of another kind than its name
            says.
    """
    with _explained(path, key):
        _open(path, encoding)


def is_readable(path: Path) -> bool:
    """Whether a file's name tells a kind that can be read."""
    return split_extension(path)[0] in READERS


def list_kinds() -> str:
    """Names the kinds that can be read, for error messages."""
    return f"{', '.join(READERS)}, each also with {' or '.join(COMPRESSIONS)} after it"


@contextmanager
def _explained(path: Path, key: str) -> Iterator[None]:
    try:
        yield
    except FileFault as fault:
        raise to_data_error(key, path, str(fault)) from None
    except OSError as error:
        raise to_data_error(key, path, explain_os_error(path, error)) from None


def _open(path: Path, encoding: str) -> SourceFile:
    check_encoding(encoding)
    _check_path(path)
    if path.is_dir():
        raise FileFault(f" is a folder; give one file in it.{_example_file(path)}")
    kind, compression = split_extension(path)
    if kind not in READERS:
        raise FileFault(_explain_extension(kind, compression))
    file = SourceFile(path, kind, compression, encoding)
    check_start(file)
    return file


def _check_path(path: Path) -> None:
    try:
        # Path.exists() would hide why a path cannot be reached; stat() raises the reason.
        path.stat()
    except ValueError as error:
        raise FileFault(f" cannot be read: {error}.") from None


def _explain_extension(kind: str, compression: str) -> str:
    what = f"the extension {kind!r} is unknown" if kind else "the name has no extension"
    if compression and not kind:
        what = f"the name tells {compression} but not what is compressed, as in 'rows.jsonl.gz'"
    return f": {what}.{did_you_mean(kind, READERS)} Allowed: {list_kinds()}."


def _example_file(folder: Path) -> str:
    files = sorted(entry for entry in folder.iterdir() if is_readable(entry))
    return f" For example {str(files[0])!r}." if files else ""
