"""One process at a time trains a run; the operating system gives the lock back when a process dies."""

import contextlib
import fcntl
from collections.abc import Iterator

from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder


@contextlib.contextmanager
def hold(run: RunFolder) -> Iterator[None]:
    """Holds a run for this process.

    Raises:
        ConfigError: Another process trains it.
    """
    with run.lock_path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{run.path} is being trained by another process. Stop that one first, or start a new run."
            ) from error
        yield


def is_held(run: RunFolder) -> bool:
    """Says whether a process trains a run now."""
    if not run.lock_path.exists():
        return False
    try:
        with hold(run):
            return False
    except ConfigError:
        return True
