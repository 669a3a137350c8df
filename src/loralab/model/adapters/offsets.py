"""Updates that count from their first values: PiSSA, OLoRA and CorDA without a changed base.

These methods start with a large update B0 A0 and take it out of the frozen weight, W - s B0 A0, so that
training starts from the base. Here the weight stays and each adapted layer subtracts s B0 A0 x from its
output, which is the same function: the base can still be measured, a resumed run loads it as it is, and
W + s (B A - B0 A0) is an ordinary adapter of twice the rank on the original base (arXiv:2404.02948, appendix
on conversion to LoRA).
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from loralab.errors import ModelError
from loralab.model.adapters.pairs import Pair

ADAPTER = "default"
DOWN, UP = "offset_down", "offset_up"
"""Buffers of an adapted layer that hold A0 [rank, in] and B0 [out, rank] in float32."""


@torch.no_grad()
def place_starts(model: PeftModel, pairs: Mapping[str, Pair], is_offset: bool) -> None:
    """Sets the first A and B of adapted layers.

    Args:
        model: A model with a new adapter.
        pairs: By the layers' names in the base.
        is_offset: Whether the layers subtract them again.
    """
    for name, pair in pairs.items():
        layer: Any = model.get_base_model().get_submodule(name)
        down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        down.copy_(pair.down)
        up.copy_(pair.up)
        if is_offset:
            layer.register_buffer(DOWN, pair.down.to(down.device), persistent=False)
            layer.register_buffer(UP, pair.up.to(up.device), persistent=False)
            layer.register_forward_hook(_subtract_start)


def without_offsets(model: PeftModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights of an adapter that needs no offset: [A; A0] and [B, -B0], of twice the rank.

    Args:
        model: The adapted model.
        weights: Values of the trainable parameters, by name.
    """
    joined = dict(weights)
    for name, (first_down, first_up) in offsets(model).items():
        down, up = f"{name}.lora_A.{ADAPTER}.weight", f"{name}.lora_B.{ADAPTER}.weight"
        joined[down] = torch.cat([joined[down], first_down.to(joined[down])], dim=0)
        joined[up] = torch.cat([joined[up], -first_up.to(joined[up])], dim=1)
    return joined


def has_offsets(model: PeftModel) -> bool:
    """Says whether an adapter counts from its first values."""
    return any(True for _ in _offset_layers(model))


def offsets(model: PeftModel) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns A0 [rank, in] and B0 [out, rank] of each layer that counts from them, by module name.

    Checkpoints keep them, because what they come from rounds differently on another device or version.
    """
    return {name: (getattr(layer, DOWN), getattr(layer, UP)) for name, layer in _offset_layers(model)}


@torch.no_grad()
def load_offsets(model: PeftModel, saved: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Puts A0 and B0 of a checkpoint in place of those that were worked out again.

    Raises:
        ModelError: The checkpoint holds those of other layers than this model.
    """
    layers = dict(_offset_layers(model))
    if layers.keys() != saved.keys():
        raise ModelError(
            f"the checkpoint holds the first updates of {len(saved)} layers, and lora.init has given them to "
            f"{len(layers)} of this model. Start a new run."
        )
    for name, (down, up) in saved.items():
        getattr(layers[name], DOWN).copy_(down)
        getattr(layers[name], UP).copy_(up)


def double_ranks(adapter_config: Path) -> None:
    """Writes twice the ranks into a saved `adapter_config.json`, with alphas that keep every scale.

    The scale is alpha / r, or alpha / sqrt(r) with rsLoRA, so that alpha grows by 2 or by its root.
    """
    config: dict[str, Any] = json.loads(adapter_config.read_text(encoding="utf-8"))
    growth = math.sqrt(2) if config["use_rslora"] else 2
    config["r"] *= 2
    config["lora_alpha"] *= growth
    config["rank_pattern"] = {key: 2 * rank for key, rank in config["rank_pattern"].items()}
    config["alpha_pattern"] = {key: growth * alpha for key, alpha in config["alpha_pattern"].items()}
    adapter_config.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _offset_layers(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and hasattr(layer, DOWN):
            yield name, layer


def _subtract_start(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    if layer.disable_adapters or layer.merged:
        return output
    x = inputs[0].to(layer.lora_A[ADAPTER].weight.dtype)
    down, up = getattr(layer, DOWN).to(x.dtype), getattr(layer, UP).to(x.dtype)
    first: Tensor = F.linear(F.linear(x, down), up) * layer.scaling[ADAPTER]
    return output - first.to(output.dtype)
