"""Rows of a dataset of the Hugging Face Hub, streamed without downloading it first."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from loralab.data.sources.rows import BrokenRow, Row, to_row
from loralab.errors import DataError

PREFIX = "hub:"
MOST_REASON_CHARS = 300
"""What is shown of a message of the Hub at most."""

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def is_hub(path: object) -> bool:
    """Whether a path names a dataset of the Hub, as in `hub:owner/name`."""
    return isinstance(path, str) and path.startswith(PREFIX)


def read_hub(
    name: str, subset: str | None, split: str, revision: str | None, key: str = "data.path"
) -> Iterator[Row | BrokenRow]:
    """Streams the rows of a dataset of the Hub, in order.

    Args:
        name: The dataset as `owner/name`.
        subset: Its configuration; None where it has one only.
        split: One of its splits.
        revision: Branch, tag or commit; None takes the main branch.
        key: The config key that names it, for error messages.

    Raises:
        DataError: The Hub cannot be reached, does not know the dataset, or gives no rows.
    """
    # Asking for the commit finds an unreachable Hub at once, where load_dataset tries again for long.
    commit, number = hub_revision(name, revision, key), 0
    with _explained(name, key):
        import datasets

        rows = datasets.load_dataset(name, subset, split=split, revision=commit, streaming=True)
        for number, fields in enumerate(rows, start=1):
            yield to_row(number, "row", fields)
    if number == 0:
        raise DataError(f"{key}='{PREFIX}{name}' has no rows in the split {split!r}; at least one is needed.")


def check_hub_name(name: str, key: str = "data.path") -> None:
    """Refuses what can be no dataset of the Hub, without asking the Hub.

    Raises:
        DataError: The name is not of the form `owner/name`.
    """
    if not _NAME.fullmatch(name):
        raise DataError(f"{key}='{PREFIX}{name}' names no dataset. Allowed: {PREFIX}owner/name.")


def hub_revision(name: str, revision: str | None, key: str = "data.path") -> str:
    """Finds the commit that a revision of a dataset stands for now.

    Args:
        name: The dataset as `owner/name`.
        revision: Branch, tag or commit; None takes the main branch.
        key: The config key that names it, for error messages.

    Raises:
        DataError: The Hub cannot be reached, or does not know the dataset or the revision.
    """
    check_hub_name(name, key)
    with _explained(name, key):
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(name, revision=revision).sha)


@contextmanager
def _explained(name: str, key: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        # Anything may be raised here: by the network, by readers of any file format, or by missing packages.
        kinds = {kind.__name__ for kind in type(error).__mro__}
        raise DataError(f"{key}='{PREFIX}{name}' {_explain(error, kinds)}") from None


def _explain(error: Exception, kinds: set[str]) -> str:
    reason = " ".join(str(error).split())[:MOST_REASON_CHARS].rstrip(" .") or type(error).__name__
    if "ImportError" in kinds:
        return f"needs a package that is missing: {reason}. Install it with pip."
    if "GatedRepoError" in kinds:
        return "is gated: ask for access on its page, then log in with `hf auth login`."
    if "RevisionNotFoundError" in kinds:
        return "has no such revision; give a branch, tag or commit of it, or null."
    if kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        return "is no dataset of the Hub, or a private one; check the name, or log in with `hf auth login`."
    if kinds & {"ConnectionError", "TransportError", "TimeoutError", "LocalEntryNotFoundError"}:
        return (
            f"cannot be reached: {reason}. Check the network and HF_HUB_OFFLINE, "
            "or give a downloaded copy of its files as path."
        )
    return f"cannot be read: {reason}."
