"""Rank and scale of single layers."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft.utils.other import get_pattern_key
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.module_names import closest


def layer_rank(lora: LoraConfig, name: str) -> int:
    """Returns the rank of a layer: of the first key of `lora.rank_pattern` that names it, else `lora.r`."""
    return int(_of_layer(lora.rank_pattern, name, lora.r))


def layer_scale(lora: LoraConfig, name: str) -> float:
    """Returns what a layer's update is multiplied by.

    alpha / r (arXiv:2106.09685, section 4.1), or alpha / sqrt(r) with `lora.rslora` (arXiv:2312.03732).
    """
    assert lora.alpha is not None, "LoraConfig fills it in"
    rank = layer_rank(lora, name)
    return float(_of_layer(lora.alpha_pattern, name, lora.alpha)) / (math.sqrt(rank) if lora.rslora else rank)


def check_patterns(lora: LoraConfig, names: Sequence[str]) -> None:
    """Refuses patterns of rank or alpha that change no adapted layer.

    Raises:
        ConfigError: A key is no regular expression, or matches none of the layers; the message lists the
            closest.
    """
    for field in ("rank_pattern", "alpha_pattern"):
        for key in getattr(lora, field):
            try:
                matches = any(get_pattern_key([key], name) == key for name in names)
            except re.error as error:
                raise ConfigError(f"lora.{field}: {key!r} is no regular expression: {error}.") from error
            if not matches:
                raise ConfigError(
                    f"lora.{field}: {key!r} matches none of the adapted layers. "
                    f"Closest: {closest(key, names)}."
                )


def check_ranks(model: PreTrainedModel, lora: LoraConfig, names: Iterable[str]) -> None:
    """Refuses a rank above the smaller side of a layer, where a full update needs no more.

    Raises:
        ConfigError: Names the narrowest layer and the largest rank that it takes.
    """
    widths = {name: min(layer_sides(model.get_submodule(name))) for name in names}
    too_wide = {name: width for name, width in widths.items() if layer_rank(lora, name) > width}
    if not too_wide:
        return
    name, width = min(too_wide.items(), key=lambda item: item[1])
    rank, last = layer_rank(lora, name), name.rpartition(".")[2]
    key = "lora.r" if rank == lora.r else "lora.rank_pattern"
    raise ConfigError(
        f"{key}={rank} is above the width of {name} ({width}). Use {width} or less, or give this layer its "
        f"own: lora.rank_pattern={{{last}: {width}}}."
    )


def layer_sides(module: nn.Module) -> tuple[int, int]:
    """Returns the inputs and outputs of a linear layer or embedding, quantized or not."""
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    # Quantized layers share no base class.
    layer: Any = module
    return int(layer.in_features), int(layer.out_features)


def _of_layer(pattern: Mapping[str, float], name: str, default: float) -> float:
    return pattern.get(get_pattern_key(list(pattern), name), default)
