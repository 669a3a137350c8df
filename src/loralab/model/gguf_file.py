"""GGUF files: unpacked once into ordinary model folders, which every later step can read."""

import hashlib
import shutil
import struct
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.gguf.reader import read_gguf_metadata
from transformers.utils.quantization_config import GgufConfig

from loralab.errors import ModelError
from loralab.model.messages import first_line
from loralab.runs.cache_folder import cache_dir

GGUF_SUFFIX = ".gguf"
NUM_LISTED = 3
"""Weights named in a message about more of them."""


def gguf_model_dir(gguf: Path) -> Path:
    """Returns the model folder of a GGUF file, unpacking it at the first call.

    The folder is named after the file's content, so that a changed file is another model and a moved one
    the same.

    Raises:
        ModelError: It is no GGUF file, one part of several, or of an architecture that cannot be unpacked.
    """
    status = gguf.stat()
    digest = _sha256(gguf, status.st_size, status.st_mtime_ns)
    return unpack_once(gguf, cache_dir() / "gguf" / digest[:32])


def unpack_once(gguf: Path, target: Path) -> Path:
    """Unpacks a GGUF file into `target` unless that is there already, and returns `target`.

    Raises:
        ModelError: It cannot be unpacked.
    """
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    try:
        print(f"Unpacking {gguf.name} once into {target} ...", flush=True)
        unpack_gguf(gguf, scratch)
        # A rename is atomic: another process either sees the whole folder or none.
        if not target.exists():
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def unpack_gguf(gguf: Path, target: Path) -> None:
    """Writes a GGUF file's weights, dequantized to bfloat16, and its tokenizer as a model folder.

    Raises:
        ModelError: transformers cannot unpack it, or leaves weights out.
    """
    architecture = read_architecture(gguf)
    folder, name = str(gguf.parent), gguf.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError, OSError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise ModelError(
            f"{gguf.name} holds a model of architecture {architecture!r}, which transformers cannot unpack: "
            f"{reason.rstrip('.')}. Give the model as a folder or a Hub name."
        ) from error
    model, info = loaded
    check_complete(info, gguf.name)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def read_architecture(gguf: Path) -> str:
    """Reads the architecture that a GGUF file names.

    Raises:
        ModelError: It is damaged, no GGUF file, one part of several, or names none.
    """
    try:
        metadata, _ = read_gguf_metadata(str(gguf))
    except (ValueError, IndexError, struct.error, OSError) as error:
        raise ModelError(f"model.path={str(gguf)!r} cannot be read as GGUF: {first_line(error)}") from error
    num_parts = metadata.get("split.count", 1)
    if num_parts > 1:
        raise ModelError(
            f"{gguf.name} is one of {num_parts} parts of a model. Join them with llama.cpp's "
            f"`llama-gguf-split --merge {gguf.name} whole.gguf` and give the whole."
        )
    return str(metadata["general.architecture"])


def check_complete(info: dict[str, Any], source: str) -> None:
    """Refuses a model of which weights were missing: transformers would fill them with random numbers.

    Args:
        info: What `from_pretrained` returns with `output_loading_info`.
        source: Where the weights came from, for the message.

    Raises:
        ModelError: Weights are missing.
    """
    missing = sorted(str(name) for name in info["missing_keys"])
    if missing:
        more = f" and {len(missing) - NUM_LISTED} more" if len(missing) > NUM_LISTED else ""
        raise ModelError(
            f"{source} lacks weights of the model: {', '.join(missing[:NUM_LISTED])}{more}. "
            "They would be random numbers; get the whole model."
        )


@lru_cache
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    """Hashes a file, once per process: a run asks where its model lies several times."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
