"""Attaching, reading, writing and saving LoRA adapters."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import peft
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loralab.config.schema import LoraConfig
from loralab.errors import ConfigError, ModelError

ALL_LINEAR = "all_linear"


def resolve_targets(model: PreTrainedModel, targets: str | list[str]) -> list[str]:
    """Turns `lora.targets` into names of linear layers that the model has.

    Args:
        model: The base model.
        targets: `all_linear`, or the last parts of module names such as `q_proj`.

    Raises:
        ConfigError: A name matches no linear layer; the message lists the closest real ones.
    """
    head = model.get_output_embeddings()
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    if not names:
        raise ConfigError(f"{type(model).__name__} has no linear layers that an adapter can be put on.")
    if targets == ALL_LINEAR:
        return sorted(names)
    wanted = [targets] if isinstance(targets, str) else targets
    for name in wanted:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or sorted(names)
            raise ConfigError(
                f"lora.targets: {name!r} matches no linear layer of this model. "
                f"Closest: {', '.join(close)}. Or use {ALL_LINEAR}."
            )
    return sorted(set(wanted))


def attach_adapter(model: PreTrainedModel, lora: LoraConfig, seed: int) -> PeftModel:
    """Freezes the base and adds a new adapter in float32: A random, B zero (arXiv:2106.09685 section 4.1)."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT takes any number
        lora_dropout=lora.dropout,
        target_modules=resolve_targets(model, lora.targets),
        task_type="CAUSAL_LM",
    )
    # PEFT would otherwise cast the activations of every adapted layer to float32 and back.
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    for parameter in trainable(adapted).values():
        parameter.data = parameter.data.float()
    return adapted


def load_adapter(model: PreTrainedModel, adapter_dir: Path, dtype: torch.dtype) -> PeftModel:
    """Opens a saved adapter for evaluation in the compute dtype.

    Raises:
        ModelError: The folder holds no adapter of PEFT.
    """
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter_dir), autocast_adapter_dtype=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{adapter_dir} holds no adapter: {str(error).splitlines()[0]}") from error
    cast_adapter(adapted, dtype)
    return adapted.eval()


def causal_lm(model: PeftModel) -> PreTrainedModel:
    """Returns the causal language model inside PEFT, adapters in place."""
    return cast(PreTrainedModel, model.get_base_model())


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapter_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yields the adapter's parameters, whether they train or not."""
    return (parameter for name, parameter in model.named_parameters() if "lora_" in name)


def cast_adapter(model: nn.Module, dtype: torch.dtype) -> None:
    """Changes the dtype that the adapter computes in."""
    for parameter in adapter_parameters(model):
        parameter.data = parameter.data.to(dtype)


def save_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, weights: Mapping[str, Tensor], adapter_dir: Path
) -> None:
    """Writes an adapter in PEFT's own format with its tokenizer and chat template.

    Args:
        model: The adapted model.
        tokenizer: Saved beside the weights.
        weights: Values of the trainable parameters, by the names of `trainable`.
        adapter_dir: Created when missing.
    """
    model.save_pretrained(str(adapter_dir), state_dict=dict(weights))
    tokenizer.save_pretrained(str(adapter_dir))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Counts trainable and all parameters; a 4-bit weight counts each of its unpacked numbers."""
    num_trainable = sum(parameter.numel() for parameter in trainable(model).values())
    return num_trainable, sum(_num_values(parameter) for parameter in model.parameters())


def _num_values(parameter: nn.Parameter) -> int:
    quant_state: Any = getattr(parameter, "quant_state", None)
    return int(torch.Size(quant_state.shape).numel()) if quant_state is not None else parameter.numel()
