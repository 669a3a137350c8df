"""What is wrong with a file as a whole, in words."""

import os
from pathlib import Path

from loralab.errors import DataError, did_you_mean

NO_PERMISSION = " cannot be opened: no permission to read it; try `chmod u+r` on it."
"""`chmod` of a folder needs x as well; `explain_os_error` says so."""


class FileFault(Exception):
    """A file that cannot be read on; the text follows the file's name in the message."""


def to_data_error(key: str, path: object, fault: str) -> DataError:
    """Makes the error of a file: the key, the path, and what is wrong with it."""
    return DataError(f"{key}={str(path)!r}{fault}")


def explain_os_error(path: Path, error: OSError) -> str:
    """Says why the system does not give a file or folder."""
    if isinstance(error, FileNotFoundError):
        if os.path.islink(path):
            return f" is a symbolic link to {os.readlink(path)!r}, which does not exist."
        return f" does not exist.{find_close_name(path)}"
    if isinstance(error, PermissionError):
        # Where the folder above is closed, the permission of the path itself cannot be asked.
        is_folder = os.access(path.parent, os.X_OK) and os.path.isdir(path)
        return NO_PERMISSION.replace("u+r", "u+rx") if is_folder else NO_PERMISSION
    return f" cannot be read: {error.strerror or first_line(error)}."


def find_close_name(path: Path) -> str:
    """Names what lies in the path's folder under a similar name, or says that there is no such folder."""
    try:
        names = os.listdir(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return f" Its folder {str(path.parent)!r} does not exist either."
    except OSError:
        return ""
    return did_you_mean(path.name, names)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without its full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .") if lines else type(error).__name__
