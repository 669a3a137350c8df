"""Where prepared data is kept, under a key of everything that shapes it, and for how long."""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.data.report import DataFile
from loralab.data.templating import special_tokens

WITHOUT_EFFECT = ("cache", "num_workers", "packing")
"""Options of `DataConfig` that change no example."""

SHAPING_PACKAGES = ("transformers", "tokenizers", "py3langid")
"""Packages whose version may change an example."""

MAX_FOLDERS = 20
"""Prepared data sets that are kept."""
MAX_BYTES = 10 * 2**30
"""Size of all of them together."""
DAY_S, HOUR_S = 86_400, 3_600
KEY = re.compile("[0-9a-f]{32}")
"""A key, which is the name of a folder."""
UNFINISHED = (".building-", ".removing-")
"""How the names of folders begin that hold no prepared data yet, or no longer."""


def cache_key(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    files: Sequence[DataFile],
    seed: int,
    today: datetime.date,
) -> str:
    """Hashes what the prepared examples are a function of.

    That is the content of the files, the options, the seed of the split, the tokenizer with its chat
    template, the day where that template writes it, the code of this package's data layer, and the
    versions of the libraries that render, tokenize and judge: a change in any of them is another key.
    """
    template = str(tokenizer.chat_template)
    options: dict[str, Any] = dataclasses.asdict(config)
    for name in WITHOUT_EFFECT:
        del options[name]
    facts = {
        "options": options,
        "seed": seed,
        "files": [(file.path, file.sha256) for file in files],
        "template": template,
        "day": today.isoformat() if "strftime_now" in template else "",
        "specials": special_tokens(tokenizer),
        "roles": (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token),
        "code": _code_hash(),
        "versions": [_version(package) for package in SHAPING_PACKAGES],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    digest.update(backend.to_str().encode() if backend is not None else repr(tokenizer).encode())
    return digest.hexdigest()[:32]


def touch(folder: Path) -> None:
    """Notes that prepared data is used now; a cache that may only be read stays as it is."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def prune(root: Path, used: Path, now: float) -> None:
    """Removes the prepared data that was not used for longest, so that a cache does not grow without end.

    At most `MAX_FOLDERS` folders and `MAX_BYTES` stay. What was used within a day stays beyond the number of
    folders, and what was used within an hour beyond the bytes too, since a run may be about to open it. A run
    that has opened its data keeps it, for a mapped file outlives its name. What a killed run left unfinished
    goes after a day. What cannot be removed is left for the next time.

    Args:
        root: The folder of all prepared data; other things in it are left alone.
        used: The data that is asked for now, which stays.
        now: Seconds since the epoch.
    """
    ages, sizes = dict[Path, float](), dict[Path, int]()
    for folder in _subfolders(root):
        facts = _facts(folder)
        age = now - max((fact.st_mtime for fact in facts), default=now)
        if folder.name.startswith(UNFINISHED):
            if age > DAY_S:
                shutil.rmtree(folder, ignore_errors=True)
        elif KEY.fullmatch(folder.name):
            ages[folder], sizes[folder] = age, sum(fact.st_size for fact in facts)
    num_left, bytes_left = len(ages), sum(sizes.values())
    for folder in sorted(ages, key=lambda folder: ages[folder], reverse=True):
        is_too_many = num_left > MAX_FOLDERS and ages[folder] > DAY_S
        is_too_much = bytes_left > MAX_BYTES and ages[folder] > HOUR_S
        if folder != used and (is_too_many or is_too_much) and remove(folder):
            num_left, bytes_left = num_left - 1, bytes_left - sizes[folder]


def remove(folder: Path) -> bool:
    """Takes a folder away under its name first, so that nobody finds half of it; says whether that worked."""
    gone = folder.with_name(f".removing-{os.getpid()}-{folder.name}")
    try:
        folder.rename(gone)
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def flush(folder: Path) -> None:
    """Waits until the files of a folder are on the disk: a power cut must not leave names without content.

    Raises:
        OSError: The disk did not take them.
    """
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _subfolders(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _facts(folder: Path) -> list[os.stat_result]:
    """The facts of a folder and its files; not of what another process removes meanwhile."""
    facts = []
    for path in (folder, *folder.glob("*")):
        with contextlib.suppress(OSError):
            facts.append(path.stat())
    return facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _code_hash() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.jinja")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
