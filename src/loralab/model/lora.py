"""Attaching, reading, writing and saving adapters."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import peft
import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loralab.config.lora_rules import OFFSET_STARTS
from loralab.config.model import LoraConfig
from loralab.errors import ModelError
from loralab.model.adapters.adalora import check_adalora
from loralab.model.adapters.biases import copy_biases, keep_base_biases
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.finishing import ADAPTER_MARKS, finish_adapter, match_dtypes
from loralab.model.adapters.ia3 import ia3_targets
from loralab.model.adapters.lora import check_lora
from loralab.model.adapters.offsets import (
    double_ranks,
    has_offsets,
    place_starts,
    without_offsets,
)
from loralab.model.adapters.origin import check_same_base
from loralab.model.adapters.registry import METHODS
from loralab.model.adapters.saved_modules import find_saved_modules
from loralab.model.adapters.starts import find_starts
from loralab.model.adapters.vera import fixed_projections
from loralab.model.messages import first_line
from loralab.model.targets import Targets, find_targets, resolve_targets

WHOLE_MARKS = ("modules_to_save.", "trainable_tokens_delta.")
"""Parts of the names of what trains whole beside low-rank updates."""


def check_adapter(model: PreTrainedModel, lora: LoraConfig) -> Targets | None:
    """Looks everything that the `lora` group names up in a module tree, before any weights load.

    Args:
        model: The base model, which may lie on the meta device.
        lora: The adapter.

    Returns:
        The layers that it goes on; None for methods that change no layer.

    Raises:
        ConfigError: Something names nothing in the model, or does not fit it.
    """
    if lora.method == "lora":
        return check_lora(model, lora)
    if lora.method == "ia3":
        find_saved_modules(model, lora)
        return Targets(names := ia3_targets(model, lora), names)
    if lora.method == "adalora":
        return check_adalora(model, lora)
    if lora.method == "vera":  # Its rank may be above a layer's width: the matrices are not learned.
        find_saved_modules(model, lora)
        return find_targets(model, lora)
    return None


def attach_adapter(
    model: PreTrainedModel, lora: LoraConfig, seed: int, context: AdapterContext | None = None
) -> PeftModel:
    """Freezes the base and adds a new adapter with float32 weights; the base's own weights stay as they are.

    Args:
        model: The loaded base.
        lora: The adapter.
        seed: Decides everything that starts at random.
        context: The run around it, for methods that need more than the model.

    Raises:
        LoralabError: The adapter does not fit this model, or what its start needs is missing.
    """
    torch.manual_seed(seed)
    context = context or AdapterContext()
    config = METHODS[lora.method](model, lora, context)
    starts = find_starts(model, resolve_targets(model, lora), lora, context) if lora.method == "lora" else {}
    biases = copy_biases(model)
    # PEFT would otherwise cast the activations of every adapted layer to float32 and back.
    adapted = cast(PeftModel, peft.get_peft_model(model, config, autocast_adapter_dtype=False))
    finish_adapter(adapted, lora, context)
    for parameter in trainable(adapted).values():
        parameter.data = parameter.data.float()
    place_starts(adapted, starts, lora.init in OFFSET_STARTS)
    keep_base_biases(adapted, biases)
    return adapted


def load_adapter(model: PreTrainedModel, adapter_dir: Path, dtype: torch.dtype) -> PeftModel:
    """Opens a saved adapter for evaluation in the compute dtype.

    Raises:
        ModelError: The folder holds no adapter of PEFT, or one of another base.
    """
    check_same_base(adapter_dir, model)
    biases = copy_biases(model)
    try:
        with warnings.catch_warnings():
            # AdaLoRA names its ranks after parameters, which PEFT applies and then takes for modules.
            warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")
            adapted = PeftModel.from_pretrained(model, str(adapter_dir), autocast_adapter_dtype=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{adapter_dir} holds no adapter: {first_line(error)}") from error
    match_dtypes(adapted)
    cast_adapter(adapted, dtype)
    keep_base_biases(adapted, biases)
    return adapted.eval()


def causal_lm(model: PeftModel) -> PreTrainedModel:
    """Returns the causal language model inside PEFT, adapters in place."""
    return cast(PreTrainedModel, model.get_base_model())


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapter_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yields what trains, and the adapter's own parameters whether they train or not."""
    return (
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or any(mark in name for mark in (*ADAPTER_MARKS, *WHOLE_MARKS))
    )


def cast_adapter(model: PeftModel, dtype: torch.dtype) -> None:
    """Changes the dtype that the adapter computes in."""
    for tensor in (*adapter_parameters(model), *fixed_projections(model).values()):
        tensor.data = tensor.data.to(dtype)


def save_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, weights: Mapping[str, Tensor], adapter_dir: Path
) -> None:
    """Writes an adapter in PEFT's own format with its tokenizer and chat template.

    An adapter that counts from its first values is written as a plain one of twice the rank.

    Args:
        model: The adapted model.
        tokenizer: Saved beside the weights.
        weights: Values of the trainable parameters, by the names of `trainable`.
        adapter_dir: Created when missing.
    """
    shared = _shared_names(model)
    values = without_offsets(model, weights)
    values |= {name: values[first] for name, first in shared.items() if first in values}
    model.save_pretrained(
        str(adapter_dir),
        state_dict={**fixed_projections(model), **values},
        # PEFT would look the size of the vocabulary up on the Hub; what trained of it is among the weights.
        save_embedding_layers=False,
    )
    if has_offsets(model):
        double_ranks(adapter_dir / "adapter_config.json")
    tokenizer.save_pretrained(str(adapter_dir))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Counts trainable and all parameters; a 4-bit weight counts each of its unpacked numbers."""
    num_trainable = sum(parameter.numel() for parameter in trainable(model).values())
    # A weight that is split among processes has lost its shape; its layer keeps it.
    packed = {id(each.weight): each.quant_state for each in model.modules() if isinstance(each, Linear4bit)}
    return num_trainable, sum(
        _num_values(parameter, packed.get(id(parameter))) for parameter in model.parameters()
    )


def _shared_names(model: nn.Module) -> dict[str, str]:
    """Returns further names of trainable parameters that modules share, to the name that `trainable` has."""
    first = {id(parameter): name for name, parameter in trainable(model).items()}
    return {
        name: first[id(parameter)]
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in first and first[id(parameter)] != name
    }


def _num_values(parameter: nn.Parameter, quant_state: Any) -> int:
    quant_state = getattr(parameter, "quant_state", None) or quant_state
    return int(torch.Size(quant_state.shape).numel()) if quant_state is not None else parameter.numel()
