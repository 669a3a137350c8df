"""Which base an adapter was trained on, and whether this is it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel

from loralab.errors import ModelError
from loralab.model.adapters.patterns import layer_sides
from loralab.model.module_names import PEFT_PREFIX

DOWN, UP = ".lora_A.", ".lora_B."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SIZES = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")


def base_facts(model: PreTrainedModel) -> dict[str, Any]:
    """Returns what tells a base apart, for `manifest.json`: its name and its sizes."""
    config = model.config.get_text_config()
    return {"name": model.name_or_path, **{key: getattr(config, key, None) for key in SIZES}}


def check_same_base(origin: Path | Mapping[str, Any], model: PreTrainedModel) -> None:
    """Refuses an adapter or checkpoint that was trained on another base.

    A base that only lies elsewhere now is the same one: of a name, the last part counts.

    Args:
        origin: A folder with an adapter of PEFT, or the `base_facts` of the run that made a checkpoint.
        model: The loaded base, without an adapter.

    Raises:
        ModelError: Names or shapes differ, or the folder holds no adapter.
    """
    here = base_facts(model)
    if isinstance(origin, Path):
        name, differences = _adapter_origin(origin, model)
        what = f"the adapter in {origin}"
    else:
        name = str(origin.get("name") or "")
        differences = [
            f"{key} {origin[key]} there, {here[key]} here"
            for key in SIZES
            if origin.get(key, here[key]) != here[key]
        ]
        what = "the checkpoint"
    if _last(name) != _last(str(here["name"])) and name and here["name"]:
        differences.insert(0, "their names differ")
    if differences:
        raise ModelError(
            f"{what} was trained on {name or 'another base'}, this run loads {here['name'] or 'a model'}: "
            f"{differences[0]}. Give model.path the base that it was trained on."
        )


def _adapter_origin(adapter_dir: Path, model: PreTrainedModel) -> tuple[str, list[str]]:
    try:
        config = json.loads((adapter_dir / CONFIG).read_text(encoding="utf-8"))
        with safe_open(adapter_dir / WEIGHTS, framework="pt") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    except (OSError, ValueError) as error:
        raise ModelError(f"{adapter_dir} holds no adapter: {str(error).splitlines()[0]}") from error
    return str(config.get("base_model_name_or_path") or ""), list(_shape_differences(shapes, model))


def _shape_differences(shapes: Mapping[str, list[int]], model: PreTrainedModel) -> Iterator[str]:
    """Compares the sides of low-rank updates with those of the layers that they belong to."""
    for key, shape in shapes.items():
        marker = DOWN if DOWN in key else UP if UP in key else None
        if marker is None:
            continue
        name = key.removeprefix(PEFT_PREFIX).partition(marker)[0]
        try:
            inputs, outputs = layer_sides(model.get_submodule(name))
        except AttributeError:
            yield f"this base has no layer {name}"
            continue
        there, here = (shape[1], inputs) if marker == DOWN else (shape[0], outputs)
        if there != here:
            yield f"{name} has {there} {'inputs' if marker == DOWN else 'outputs'} there, {here} here"


def _last(name: str) -> str:
    return PurePath(name).name.lower()
