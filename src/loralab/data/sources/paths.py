"""From what a user gives as a path to the files behind it."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from loralab.data.sources.faults import FileFault, explain_os_error, find_close_name, to_data_error
from loralab.data.sources.hub import is_hub
from loralab.data.sources.reading import is_readable, list_kinds
from loralab.errors import DataError

METADATA = ("dataset_info.json", "dataset_infos.json")
"""Files that describe the files beside them."""
SPLITS_FILE = "dataset_dict.json"
"""What `save_to_disk` leaves in a folder whose subfolders are the splits."""


def expand_paths(path: str | Sequence[str], key: str = "data.path") -> list[Path]:
    """Finds the files that a path stands for, sorted and each once.

    Args:
        path: A file, a folder (every file of a known kind below it, hidden ones left out), a glob (`**` goes
            through folders), or a list of these.
        key: The config key that holds it, for error messages.

    Raises:
        DataError: A path leads to no file that can be read.
    """
    given = [path] if isinstance(path, str | Path) else path
    if not isinstance(given, Sequence) or not given:
        raise DataError(f"{key}={path!r} names no file; give a file, folder, glob, or a list of them.")
    found: dict[str, Path] = {}
    for each in given:
        if not isinstance(each, str | Path) or not str(each).strip():
            raise DataError(f"{key}: {each!r} is no path; give a file, folder or glob as text.")
        if is_hub(each):
            raise DataError(f"{key}: {each!r} cannot stand in a list of files. {_advise_hub(key, str(each))}")
        for file in _expand(str(each), key):
            found.setdefault(os.path.realpath(file), file)
    return sorted(found.values())


def _advise_hub(key: str, name: str) -> str:
    entries = key.partition("[")[0]
    if entries in ("data.val_path", "data.test_path"):
        return "Give it alone, or a downloaded copy of its files."
    # Whatever is compared with must not be trained on, so its entry belongs to its own key.
    entries = "data.sources" if entries == "data.path" else entries
    return f"Give each its own entry: {entries}=[{{path:'{name}'}},{{path:FILE}}]."


def _expand(text: str, key: str) -> list[Path]:
    path = Path(text)
    try:
        path = path.expanduser()
        if glob.has_magic(text) and not path.exists():
            return _match(path)
        path.stat()
        return _list_folder(path) if path.is_dir() else [path]
    except FileFault as fault:
        raise to_data_error(key, path, str(fault)) from None
    except OSError as error:
        # A folder below the one that was given may be the one that is closed.
        inner = Path(error.filename) if isinstance(error.filename, str) else path
        raise to_data_error(key, inner, explain_os_error(inner, error)) from None
    except (ValueError, RuntimeError) as error:
        raise to_data_error(key, path, f" cannot be read: {error}.") from None


def _match(pattern: Path) -> list[Path]:
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]
    folders = [match for match in matches if match.is_dir()]
    files = [match for match in matches if not match.is_dir()]
    if folders and not files:
        return [file for folder in folders for file in _list_folder(folder)]
    if not files:
        raise FileFault(f" matches no file.{_near_miss(pattern)}")
    readable = _keep_readable(files)
    if not readable:
        raise FileFault(f" matches no file of a known kind, only {str(files[0])!r}. Allowed: {list_kinds()}.")
    return readable


def _keep_readable(files: Iterable[Path]) -> list[Path]:
    """Keeps the files of known kinds; a link among them that leads nowhere raises its OSError."""
    readable = [file for file in files if is_readable(file) and not _is_metadata(file)]
    for file in readable:
        file.stat()
    return readable


def _near_miss(pattern: Path) -> str:
    """Names what is like the first part of a pattern that leads nowhere."""
    reached = Path(pattern.anchor)
    for part in pattern.relative_to(reached).parts:
        here = reached / part
        if glob.has_magic(part):
            return find_close_name(here) if part != "**" else ""
        if not here.is_dir():
            return f" {str(here)!r} does not exist.{find_close_name(here)}"
        reached = here
    return ""


def _list_folder(folder: Path) -> list[Path]:
    files = _keep_readable(_walk(folder))
    if not files:
        raise FileFault(f" is a folder without a file of a known kind in it. Allowed: {list_kinds()}.")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder, through links as well but never in a circle; hidden ones left out."""
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(root)
        if SPLITS_FILE in files:
            splits = ", ".join(repr(name) for name in sorted(folders))
            raise FileFault(f" holds the splits {splits} of one dataset; give one of these folders.")
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            yield from (Path(root, name) for name in files if not name.startswith("."))
        seen.add(real)


def _is_metadata(file: Path) -> bool:
    """Whether a file holds no rows of its own, as beside the Arrow files that `datasets` writes."""
    if file.name in METADATA:
        return True
    beside_arrow = (file.parent / "state.json").is_file() and (file.parent / METADATA[0]).is_file()
    is_cache = file.suffix == ".arrow" and file.name.startswith("cache-")
    return beside_arrow and (file.name == "state.json" or is_cache)


def _raise(error: OSError) -> None:
    raise error
