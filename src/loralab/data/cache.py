"""Where prepared data is kept, under a key of everything that shapes it."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.data.report import DataFile
from loralab.data.templating import special_tokens

WITHOUT_EFFECT = ("cache", "num_workers", "packing")
"""Options of `DataConfig` that change no example."""


def cache_dir() -> Path:
    """The folder of everything that can be made again: `$LORALAB_CACHE` or `~/.cache/loralab`."""
    return Path(os.environ.get("LORALAB_CACHE") or Path.home() / ".cache" / "loralab")


def cache_key(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, files: Sequence[DataFile], seed: int
) -> str:
    """Hashes what the prepared examples are a function of.

    That is the content of the files, the options, the seed of the split, the tokenizer with its chat
    template, and the code of this package's data layer: a change in any of them is another key.
    """
    options: dict[str, Any] = dataclasses.asdict(config)
    for name in WITHOUT_EFFECT:
        del options[name]
    facts = {
        "options": options,
        "seed": seed,
        "files": [(file.path, file.sha256) for file in files],
        "template": str(tokenizer.chat_template),
        "specials": special_tokens(tokenizer),
        "roles": (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token),
        "code": _code_hash(),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    digest.update(backend.to_str().encode() if backend is not None else repr(tokenizer).encode())
    return digest.hexdigest()[:32]


def _code_hash() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.jinja")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
