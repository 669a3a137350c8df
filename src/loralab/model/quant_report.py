"""What quantization does to a loaded model: the bytes of each layer and how far its weights moved."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loralab.model.hardware import dtype_name
from loralab.model.int8 import dequantize_int8
from loralab.model.location import loaded_revision
from loralab.model.prequantized import is_unmeasured
from loralab.model.quantize import linear_layers

BITS = 8
OTHER = "other"
"""Name of the parameters outside linear layers: embeddings, output head, norms, biases, fused experts."""
MOST_COMPARED_VALUES = 2_000_000_000
"""Size of the largest model whose checkpoint a run reads again for errors: 4 GB in bfloat16."""


@dataclass(frozen=True)
class LayerStorage:
    """The weights of one layer."""

    name: str
    """Name of the module."""
    scheme: str
    """nf4, fp4, int8, or the dtype where they are not quantized."""
    num_values: int
    """Numbers that the weights are."""
    bytes_full: int
    """Bytes in the dtype that they would have without quantization."""
    bytes_stored: int
    """Bytes that they take, with scales, tables and offsets."""
    relative_error: float | None = None
    """||W - Q(W)|| / ||W|| (Frobenius norms) against the checkpoint; None where it was not compared."""

    @property
    def kind(self) -> str:
        """The last part of the name, which the same layers of all decoder blocks share."""
        return self.name.rpartition(".")[2]

    @property
    def bits_per_value(self) -> float:
        """Bits that a number takes."""
        return BITS * self.bytes_stored / self.num_values


@dataclass(frozen=True)
class KindStorage:
    """Layers of one kind and scheme together."""

    kind: str
    scheme: str
    num_layers: int
    num_values: int
    bytes_full: int
    bytes_stored: int
    bits_per_value: float
    error_min: float | None
    """Smallest relative error of a layer; None where none was compared."""
    error_mean: float | None
    error_max: float | None


def layer_storage(model: PreTrainedModel, errors: Mapping[str, float] | None = None) -> list[LayerStorage]:
    """Measures every linear layer of a base model, from the tensors it holds.

    The sum for NF4 with double quantization is 4 + 8/64 + 32/(64 x 256) = 4.127 bits per number
    (arXiv:2305.14314, section 3) and 1,092 bytes of tables for each layer.

    Args:
        model: A base without adapter, loaded.
        errors: What `relative_errors` found, by name.
    """
    dtype, errors = _full_dtype(model), errors or {}
    layers = []
    for name, layer in linear_layers(model):
        num_values = _num_values(layer)
        layers.append(
            LayerStorage(
                name=name,
                scheme=_scheme(layer),
                num_values=num_values,
                bytes_full=num_values * dtype.itemsize,
                bytes_stored=sum(tensor.numel() * tensor.itemsize for tensor in _stored_tensors(layer)),
                relative_error=errors.get(name),
            )
        )
    return layers


def other_storage(model: PreTrainedModel) -> LayerStorage:
    """Measures the parameters that are no weights of `layer_storage`, tied ones once."""
    weights = {id(layer.weight) for _, layer in linear_layers(model)}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in weights]
    num_values, dtype = sum(parameter.numel() for parameter in rest), _full_dtype(model)
    stored = sum(parameter.numel() * parameter.itemsize for parameter in rest)
    return LayerStorage(OTHER, dtype_name(dtype), num_values, num_values * dtype.itemsize, stored)


def total_storage(name: str, layers: Iterable[LayerStorage]) -> LayerStorage:
    """Adds layers up."""
    rows = list(layers)
    return LayerStorage(
        name,
        "",
        sum(row.num_values for row in rows),
        sum(row.bytes_full for row in rows),
        sum(row.bytes_stored for row in rows),
    )


def by_kind(layers: Sequence[LayerStorage]) -> list[KindStorage]:
    """Groups layers over the decoder blocks, in the order in which the kinds first come."""
    groups: dict[tuple[str, str], list[LayerStorage]] = defaultdict(list)
    for layer in layers:
        groups[layer.kind, layer.scheme].append(layer)
    rows = []
    for (kind, scheme), members in groups.items():
        total = total_storage(kind, members)
        errors = [member.relative_error for member in members if member.relative_error is not None]
        rows.append(
            KindStorage(
                kind=kind,
                scheme=scheme,
                num_layers=len(members),
                num_values=total.num_values,
                bytes_full=total.bytes_full,
                bytes_stored=total.bytes_stored,
                bits_per_value=total.bits_per_value,
                error_min=min(errors, default=None),
                error_mean=sum(errors) / len(errors) if errors else None,
                error_max=max(errors, default=None),
            )
        )
    return rows


def storage_table(model: PreTrainedModel) -> list[dict[str, Any]]:
    """Returns a base model's storage by kind of layer, then of all other parameters: rows for JSON.

    Args:
        model: A base without adapter, loaded; its checkpoint is read again up to `MOST_COMPARED_VALUES`.

    Returns:
        No rows where the base was quantized by a library whose layers are not measured (`is_unmeasured`).
    """
    if is_unmeasured(model.config):
        return []
    layers, other = layer_storage(model), other_storage(model)
    if total_storage("model", [*layers, other]).num_values <= MOST_COMPARED_VALUES:
        layers = layer_storage(model, relative_errors(model))
    return [
        {
            "name": row.kind if row.num_layers == 1 else f"{row.kind} x {row.num_layers}",
            "kind": row.kind,
            "scheme": row.scheme,
            "num_layers": row.num_layers,
            "num_values": row.num_values,
            "bytes_full": row.bytes_full,
            "bytes_stored": row.bytes_stored,
            "bits_per_value": row.bits_per_value,
            "relative_error": row.error_mean,
        }
        for row in by_kind([*layers, other])
    ]


def relative_errors(model: PreTrainedModel) -> dict[str, float]:
    """Compares every linear layer with the checkpoint it was loaded from: ||W - Q(W)|| / ||W||.

    Shards are opened lazily, one after the other, so that one layer at a time exists twice.

    Args:
        model: A base without adapter, loaded from a folder or the Hub.

    Returns:
        The errors by layer. A layer is missing where the checkpoint is no safetensors file, is not on this
        machine, or has no tensor of that name and shape: it may be quantized itself.
    """
    layers = dict(linear_layers(model))
    places: dict[Path, dict[str, str]] = defaultdict(dict)
    folder = _checkpoint_dir(model)
    keys = {} if folder is None else _checkpoint_keys(folder)
    for name in layers:
        key = next((key for key in _key_candidates(name, model.base_model_prefix) if key in keys), None)
        if key is not None:
            places[keys[key]][name] = key
    errors: dict[str, float | None] = {}
    for shard, names in places.items():
        with safe_open(shard, framework="pt") as tensors:
            for name, key in names.items():
                errors[name] = _relative_error(layers[name], tensors.get_tensor(key))
    return {name: error for name in layers if (error := errors.get(name)) is not None}


@torch.no_grad()
def dequantized(layer: Any) -> Tensor:
    """Returns the weight that a linear layer multiplies by: [out, in]; of a `Conv1D` [in, out]."""
    if isinstance(layer, Linear4bit):
        unpacked: Tensor = dequantize_4bit(layer.weight.data, _quant_state(layer))
        return unpacked
    if isinstance(layer, Linear8bitLt):
        return dequantize_int8(layer.weight.data, _row_scales(layer), torch.float32)
    weight: Tensor = layer.weight
    return weight.detach()


def _relative_error(layer: Any, original: Tensor) -> float | None:
    stored = dequantized(layer)
    if getattr(layer, "source_cls", None) is Conv1D:
        # Quantization has turned the weight of a `Conv1D` into that of a linear layer.
        stored = stored.T
    if original.shape != stored.shape or not original.is_floating_point():
        return None
    full = original.to(stored.device, torch.float32)
    return float((stored.float() - full).norm() / full.norm())


def _key_candidates(name: str, prefix: str) -> Iterator[str]:
    """A base saved without its head has names without the prefix of the model, and the other way round."""
    yield f"{name}.weight"
    yield f"{name.removeprefix(f'{prefix}.')}.weight"
    yield f"{prefix}.{name}.weight"


def _checkpoint_dir(model: PreTrainedModel) -> Path | None:
    """The folder that a base was loaded from: of the same revision, where it came from the Hub."""
    location = str(model.name_or_path)
    if Path(location).is_dir():
        return Path(location)
    revision, weights = loaded_revision(model), ["*.safetensors*"]
    try:
        found = snapshot_download(location, revision=revision, local_files_only=True, allow_patterns=weights)
    except (OSError, ValueError):
        return None
    return Path(found)


def _checkpoint_keys(folder: Path) -> dict[str, Path]:
    """Finds the file of every tensor of a checkpoint; nothing but headers is read."""
    keys = {}
    for shard in sorted(folder.glob("model*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            keys.update(dict.fromkeys(tensors.keys(), shard))
    return keys


def _full_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype that weights have where they are not quantized."""
    embedding: Any = model.get_input_embeddings()
    dtype: torch.dtype = embedding.weight.dtype
    return dtype


def _scheme(layer: Any) -> str:
    if isinstance(layer, Linear4bit):
        return str(_quant_state(layer).quant_type)
    return "int8" if isinstance(layer, Linear8bitLt) else dtype_name(layer.weight.dtype)


def _num_values(layer: Any) -> int:
    if isinstance(layer, Linear4bit):
        return torch.Size(_quant_state(layer).shape).numel()
    return int(layer.weight.numel())


def _stored_tensors(layer: Any) -> Iterator[Tensor]:
    """Everything that the weight of a layer is stored in."""
    yield layer.weight.data
    if isinstance(layer, Linear8bitLt):
        yield _row_scales(layer)
    if isinstance(layer, Linear4bit):
        state = _quant_state(layer)
        yield from (state.absmax, state.code)
        if state.nested:
            yield from (state.offset, state.state2.absmax, state.state2.code)


def _quant_state(layer: Any) -> Any:
    return layer.weight.quant_state


def _row_scales(layer: Any) -> Tensor:
    """The scales of the rows, which the first forward pass moves from the weight to the layer's state."""
    scales: Tensor = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    return scales
