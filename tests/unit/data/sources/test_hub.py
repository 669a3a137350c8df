"""Streaming a dataset of the Hub, with the Hub played by files on disk."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import httpx
import huggingface_hub
import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from loralab.data.sources import Row, hub_revision, read_hub
from loralab.errors import DataError

COMMIT = "0123456789abcdef"
CALLS: dict[str, Any] = {}
