"""The reading side: from files, folders, globs and the Hub to streams of raw rows."""

from loralab.data.sources.hub import hub_revision, is_hub, read_hub
from loralab.data.sources.paths import expand_paths
from loralab.data.sources.reading import READERS, read_rows
from loralab.data.sources.rows import BrokenRow, Row, json_type
from loralab.data.sources.streams import hash_file

__all__ = [
    "READERS",
    "BrokenRow",
    "Row",
    "expand_paths",
    "hash_file",
    "hub_revision",
    "is_hub",
    "json_type",
    "read_hub",
    "read_rows",
]
