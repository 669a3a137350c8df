"""Room on the disk: asked for before writing, and named where it runs out in the middle."""

import errno
import shutil
from pathlib import Path

from loralab.errors import StorageError

MARGIN = 1.05
"""A file takes whole blocks, and the metrics grow beside it."""
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXTS = ("No space left on device", "Disk quota exceeded")
"""How libraries that hand no error number on say it."""
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
STEP = 1024


def require_room(folder: Path, needed: int) -> None:
    """Refuses to begin writing what does not fit.

    Args:
        folder: Where to write; it exists.
        needed: Bytes of what is to be written.

    Raises:
        StorageError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed * MARGIN:
        raise _no_room(folder, needed, free)


def explain_full_disk(error: BaseException, folder: Path, needed: int) -> StorageError | None:
    """Turns what a library raised on a full disk into an error that says so; None where it is another."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in FULL or any(text in str(cause) for text in FULL_TEXTS):
            return _no_room(folder, needed, shutil.disk_usage(folder).free)
        cause = cause.__cause__ or cause.__context__
    # PyTorch's writer reports a short write without its reason.
    if isinstance(error, RuntimeError | OSError) and shutil.disk_usage(folder).free < needed:
        return _no_room(folder, needed, shutil.disk_usage(folder).free)
    return None


def size_text(num_bytes: float) -> str:
    """Writes a number of bytes in the unit that suits it, such as `1.5 GiB`."""
    for unit in UNITS[:-1]:
        if num_bytes < STEP:
            return f"{num_bytes:.0f} {unit}" if unit == UNITS[0] else f"{num_bytes:.1f} {unit}"
        num_bytes /= STEP
    return f"{num_bytes:.1f} {UNITS[-1]}"


def _no_room(folder: Path, needed: int, free: int) -> StorageError:
    return StorageError(
        f"the disk of {folder} is full: a checkpoint needs {size_text(needed * MARGIN)} and "
        f"{size_text(free)} are free. The checkpoints before it are whole. "
        "Make room and continue, or lower callbacks.keep_last."
    )
