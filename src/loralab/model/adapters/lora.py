"""LoRA: the PEFT config of the `lora` group."""

import peft
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.patterns import check_patterns, check_ranks
from loralab.model.adapters.saved_modules import find_saved_modules
from loralab.model.adapters.tokens import is_tied, trainable_rows
from loralab.model.targets import Targets, find_targets

MEASURED_STARTS = ("orthogonal", "pissa", "olora", "loftq", "eva", "corda")
"""Values of `lora.init` that `model.adapters.starts` sets in place of PEFT."""


def lora_config(model: PreTrainedModel, lora: LoraConfig, context: AdapterContext) -> peft.LoraConfig:
    """Builds PEFT's config of a LoRA adapter (arXiv:2106.09685) for a model.

    Raises:
        ConfigError: A target, layer, pattern, module or token names nothing in the model, or a rank is above
            a layer's width.
    """
    targets = check_lora(model, lora)
    saved = find_saved_modules(model, lora)
    return peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT takes any number
        lora_dropout=lora.dropout,
        target_modules=targets.selector,
        bias=lora.bias,  # type: ignore[arg-type]  # checked before
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        # PEFT would change the base for some starts; `model.adapters.starts` sets them without.
        init_lora_weights="gaussian" if lora.init == "gaussian" else True,
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        modules_to_save=saved or None,
        trainable_token_indices=trainable_rows(model, lora, context, saved),
        ensure_weight_tying=bool(saved) and is_tied(model) and _holds_embeddings(model, saved),
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in targets.names),
        task_type="CAUSAL_LM",
    )


def check_lora(model: PreTrainedModel, lora: LoraConfig) -> Targets:
    """Looks everything that needs no tokenizer up in the module tree, which may lie on the meta device.

    Raises:
        ConfigError: A target, layer or pattern names nothing, a rank is above a layer's width, no bias is
            there to train, or a start does not fit the kind of layer.
    """
    targets = find_targets(model, lora)
    check_patterns(lora, targets.names)
    check_ranks(model, lora, targets.names)
    find_saved_modules(model, lora)
    if lora.bias != "none":
        _check_biases(model, lora, targets)
    embedding = next((n for n in targets.names if isinstance(model.get_submodule(n), nn.Embedding)), None)
    if embedding is not None and (lora.dora or lora.init in MEASURED_STARTS):
        option = "dora=true" if lora.dora else f"init={lora.init}"
        raise ConfigError(f"lora.{option} is made for linear layers. Leave {embedding} out of lora.targets.")
    return targets


def _check_biases(model: PreTrainedModel, lora: LoraConfig, targets: Targets) -> None:
    modules = (
        [model.get_submodule(name) for name in targets.names] if lora.bias == "lora_only" else model.modules()
    )
    if all(getattr(module, "bias", None) is None for module in modules):
        where = "the adapted layers have" if lora.bias == "lora_only" else f"{type(model).__name__} has"
        raise ConfigError(f"lora.bias={lora.bias} has no effect: {where} no biases. Use lora.bias=none.")


def _holds_embeddings(model: PreTrainedModel, saved: list[str]) -> bool:
    return any(model.get_submodule(name) is model.get_input_embeddings() for name in saved)
