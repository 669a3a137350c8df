"""Errors that a user can mend: each carries the key, the value, what is allowed and the fix."""

import difflib
from collections.abc import Iterable


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


class Interrupted(Exception):
    """A run stopped by a signal; the message says how to continue. Ends a command with exit code 130."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the closest option, or an empty string when none is close."""
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
