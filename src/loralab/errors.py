"""Errors that a user can mend: each carries the key, the value, what is allowed and the fix."""

import contextlib
import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import NoReturn

EXIT_USER, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 2, 130, 1
"""What a command ends with: the user must change something; a signal stopped it; nobody reads its output."""


class LoralabError(Exception):
    """Base of every error that ends a command with exit code 2 and a short message."""


class ConfigError(LoralabError):
    """A configuration key, value or combination is wrong."""


class DataError(LoralabError):
    """A data file or its rows cannot be used."""


class ModelError(LoralabError):
    """A model or tokenizer cannot be loaded or does not fit the request."""


class StorageError(LoralabError):
    """A disk is full."""


class ProcessLost(LoralabError):
    """Another process of the run ended, so that this one cannot go on."""


class AlreadyTold(LoralabError):
    """Another process of the run failed and says why; this one ends without a word."""


class Interrupted(Exception):
    """A run stopped by a signal; the message says how to continue. Ends a command with exit code 130."""


def did_you_mean(word: str, options: Iterable[str], most: int = 1) -> str:
    """Returns `" Did you mean 'x'?"` for the closest options, or an empty string when none is close."""
    close = difflib.get_close_matches(word, list(options), n=most, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def leave(code: int, message: str) -> NoReturn:
    """Ends the command with a message; all processes of a run but the first give their number with it."""
    sys.stdout.flush()
    number = os.environ.get("RANK", "0")
    print(message if number == "0" else f"process {number}: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Ends a command whose output nobody reads any longer, such as `head`, without a word.

    Output that waits is written at the end, or the interpreter would find out, and say so.
    """
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter must not find out once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
