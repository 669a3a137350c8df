"""A few decoder layers that stand for all of them."""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList | None:
    """Returns the list of decoder layers; None where the model keeps no such list."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    return next((layers for layers in lists if len(layers) == count), None)


def layer_kinds(model: PreTrainedModel, layers: nn.ModuleList) -> list[tuple[Any, ...]]:
    """Describes each decoder layer; layers with equal descriptions take equal memory."""
    types = getattr(model.config.get_text_config(), "layer_types", None) or [None] * len(layers)
    return [
        (
            types[number],
            getattr(layer, "gradient_checkpointing", False),
            *(
                (name, *parameter.shape, parameter.requires_grad)
                for name, parameter in layer.named_parameters()
            ),
        )
        for number, layer in enumerate(layers)
    ]


@contextmanager
def only_layers(model: PreTrainedModel, chosen: list[int]) -> Iterator[nn.ModuleList]:
    """Lets the model have, while the context lasts, only some of its decoder layers.

    Args:
        model: A model with `decoder_layers`.
        chosen: Numbers of the layers to keep, ascending.
    """
    layers = decoder_layers(model)
    assert layers is not None
    config, modules = model.config.get_text_config(), dict(layers._modules)
    types = getattr(config, "layer_types", None)
    count = config.num_hidden_layers
    numbered: list[tuple[Any, int]] = [
        (part, cast(int, part.layer_idx))
        for number in chosen
        for part in layers[number].modules()
        if isinstance(getattr(part, "layer_idx", None), int)
    ]
    places = {number: place for place, number in enumerate(chosen)}
    try:
        layers._modules = {str(place): modules[str(number)] for place, number in enumerate(chosen)}
        config.num_hidden_layers = len(chosen)
        if types is not None:
            config.layer_types = [types[number] for number in chosen]
        for part, number in numbered:
            part.layer_idx = places.get(number, number)
        yield layers
    finally:
        layers._modules, config.num_hidden_layers = modules, count
        if types is not None:
            config.layer_types = types
        for part, number in numbered:
            part.layer_idx = number


@dataclass(frozen=True)
class LayerSample:
    """Decoder layers that run together."""

    layers: tuple[int, ...]
    """Their numbers, ascending."""
    missing: int
    """Layers like the one that this sample has beside the first sample's, which run in neither."""


def sample_layers(kinds: Sequence[Hashable]) -> list[LayerSample]:
    """Chooses the layers to run: the first and the last of each kind, then with one more of each kind.

    The first and the last layers are where the peak can be: memory grows or falls steadily in between.

    Args:
        kinds: What kind each layer is of.
    """
    places: dict[Hashable, list[int]] = {}
    for number, kind in enumerate(kinds):
        places.setdefault(kind, []).append(number)
    ends = {number for numbers in places.values() for number in (numbers[0], numbers[-1])}
    if len(ends) * (1 + len(places)) >= len(kinds):
        return [LayerSample(tuple(range(len(kinds))), 0)]
    more = [numbers for numbers in places.values() if len(numbers) > len({numbers[0], numbers[-1]})]
    return [
        LayerSample(tuple(sorted(ends)), 0),
        *(LayerSample(tuple(sorted({*ends, each[len(each) // 2]})), len(each) - 2) for each in more),
    ]


def layer_stages(kinds: Sequence[Hashable], layers: Sequence[int]) -> list[str]:
    """Names the backward pass of each layer that runs: the first, a middle or the last of its kind."""
    numbered = {kind: place for place, kind in enumerate(dict.fromkeys(kinds))}
    chosen = [kinds[number] for number in layers]
    names = []
    for place, kind in enumerate(chosen):
        is_last, is_first = kind not in chosen[place + 1 :], kind not in chosen[:place]
        end = "last" if is_last else "first" if is_first else "middle"
        names.append(f"backward of the {end} layer of kind {numbered[kind]}")
    return names


def extrapolate(traced: Sequence[dict[str, Counter[str]]], missing: Sequence[int]) -> dict[str, Counter[str]]:
    """Follows straight lines from a few layers to all of them.

    Args:
        traced: Peaks by stage of the first sample, and of those with one more layer.
        missing: For each sample how many layers like its additional one are still to add to the first.
    """
    first, *others = traced
    stages = {}
    for stage, parts in first.items():
        total = dict(parts)
        for other, number in zip(others, missing[1:], strict=True):
            for part in {*parts, *other[stage]}:
                total[part] = total.get(part, 0) + number * (other[stage][part] - parts[part])
        stages[stage] = Counter(total)
    return stages
