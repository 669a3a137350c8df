"""One process at a time trains a run; the operating system gives the lock back when a process dies."""

import contextlib
import errno
import fcntl
from collections.abc import Iterator

from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What file systems answer that have no locks: there, nobody is kept out."""


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
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield


def is_held(run: RunFolder) -> bool:
    """Says whether a process trains a run now."""
    if not run.lock_path.exists():
        return False
    with run.lock_path.open() as file:
        try:
            # Shared, so that two that look do not see each other.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
    return False
