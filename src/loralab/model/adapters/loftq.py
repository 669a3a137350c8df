"""LoftQ (arXiv:2310.08659): an adapter that starts as the correction of the quantization error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError, ModelError
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.pairs import Pair, split_pair
from loralab.model.adapters.patterns import layer_rank, layer_scale
from loralab.model.location import loaded_revision

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def loftq_starts(
    model: PreTrainedModel, names: list[str], lora: LoraConfig, context: AdapterContext
) -> dict[str, Pair]:
    """Takes the best low-rank part of each layer's quantization error.

    The frozen weights stay as they are, so that a saved adapter fits the base that anyone quantizes in the
    same way: one step of the alternation of arXiv:2310.08659, algorithm 1, with Q(W) as it starts.

    Raises:
        ConfigError: No adapted layer is in 4 bits, or the full weights have no place.
        ModelError: The full weights of a layer are not in safetensors files there.
    """
    layers = {name: layer for name in names if isinstance(layer := model.get_submodule(name), Linear4bit)}
    if not layers:
        raise ConfigError(
            "lora.init=loftq corrects layers in 4 bits, and no adapted layer is. Use lora.init=default."
        )
    if context.base_dir is None:
        raise ConfigError(
            "lora.init=loftq needs the folder of the full-precision weights, which is not known here."
        )
    read = weight_reader(context.base_dir, model.base_model_prefix, loaded_revision(model))
    pairs = {}
    for name, layer in layers.items():
        stored = _dequantize(layer)
        full = read(f"{name}.weight").to(stored)
        if getattr(layer, "source_cls", None) is Conv1D:
            full = full.T
        if full.shape != stored.shape:
            raise ModelError(
                f"lora.init=loftq: {context.base_dir} has {name} as {list(full.shape)}, not "
                f"{list(stored.shape)}: these are no full-precision weights."
            )
        left, values, right = torch.linalg.svd(full - stored, full_matrices=False)
        rank = layer_rank(lora, name)
        pairs[name] = split_pair(left[:, :rank], values[:rank] / layer_scale(lora, name), right[:rank])
    return pairs


def weight_reader(base_dir: str, prefix: str, revision: str | None = None) -> Callable[[str], Tensor]:
    """Returns a function that reads one tensor at a time from a model's safetensors files.

    Args:
        base_dir: A folder, or a Hub name whose files are in the cache.
        prefix: Name of the decoder inside the model, which some files leave out.
        revision: Which one of a Hub model; None takes its main branch.

    Raises:
        ModelError: There are no safetensors files.
    """
    folder = _folder(base_dir, revision)
    if (folder / INDEX).is_file():
        files: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    elif (folder / SINGLE).is_file():
        with safe_open(folder / SINGLE, framework="pt") as opened:
            files = dict.fromkeys(opened.keys(), SINGLE)
    else:
        raise ModelError(
            f"lora.init=loftq reads full weights from safetensors files, and {base_dir} has none."
        )

    def read(name: str) -> Tensor:
        """Reads a tensor by its name in the module tree."""
        key = name if name in files else name.removeprefix(f"{prefix}.")
        if key not in files:
            raise ModelError(f"lora.init=loftq: {base_dir} has no weight {name}.")
        with safe_open(folder / files[key], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(key)
        return tensor

    return read


def _dequantize(layer: Linear4bit) -> Tensor:
    """Returns what a layer multiplies by, in float32: [out, in]."""
    weight: Any = layer.weight
    return dequantize_4bit(weight.data, weight.quant_state).float()


def _folder(base_dir: str, revision: str | None) -> Path:
    if Path(base_dir).is_dir():
        return Path(base_dir)
    try:
        return Path(
            snapshot_download(
                base_dir, revision=revision, local_files_only=True, allow_patterns=["*.safetensors*"]
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError) as error:
        raise ModelError(
            f"lora.init=loftq needs the full weights of {base_dir}, which are not here."
        ) from error
