"""IA3 (arXiv:2205.05638): learned vectors that scale keys, values and inner activations."""

from dataclasses import replace

import peft
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.saved_modules import find_saved_modules
from loralab.model.module_names import ends_with, shortest_ends
from loralab.model.targets import ALL_LINEAR, find_targets

KEYS_AND_VALUES = frozenset({
    "k_proj", "v_proj", "key", "value", "query_key_value", "qkv_proj", "qkv", "c_attn", "Wqkv", "kv_b_proj",
})  # fmt: skip
"""Last parts of the names of layers that make keys and values; where queries share the layer, they too."""
DOWN = frozenset({"down_proj", "fc2", "fc_out", "dense_4h_to_h", "w2"})
"""Last parts of the names of layers that read a feed-forward block's inner activations."""
DOWN_IN_MLP = "mlp.c_proj"
"""The same where only its parent tells it from the attention's output."""


def ia3_config(model: PreTrainedModel, lora: LoraConfig, context: AdapterContext) -> peft.PeftConfig:
    """Builds PEFT's config of IA3 (arXiv:2205.05638, section 3.3).

    `lora.targets=auto` scales keys, values and the inputs of the down projections; given targets scale
    their outputs, or their inputs where they are down projections.

    Raises:
        ConfigError: A target or a module to save names nothing, or `auto` knows no layer of this
            architecture.
    """
    names = ia3_targets(model, lora)
    everything = [name for name, _ in model.named_modules()]
    down = [name for name in names if is_down(name)]
    return peft.IA3Config(
        target_modules=shortest_ends(names, everything),
        # A part of the targets, in their words: PEFT compares the two lists.
        feedforward_modules=[
            end for end in shortest_ends(names, everything) if any(ends_with(name, end) for name in down)
        ],
        modules_to_save=find_saved_modules(model, lora) or None,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in names),
        task_type="CAUSAL_LM",
    )


def ia3_targets(model: PreTrainedModel, lora: LoraConfig) -> list[str]:
    """Returns the whole names of the layers that IA3 scales.

    Raises:
        ConfigError: A target names nothing, or `auto` knows no layer of this architecture.
    """
    if lora.targets != "auto":
        return find_targets(model, lora).names
    linear = find_targets(model, replace(lora, targets=ALL_LINEAR)).names
    names = [name for name in linear if name.rpartition(".")[2] in KEYS_AND_VALUES or is_down(name)]
    if not names:
        raise ConfigError(
            f"lora.targets=auto knows no keys, values or down projections of {type(model).__name__} for IA3. "
            f"Give names: {', '.join(sorted({name.rpartition('.')[2] for name in linear}))}."
        )
    return names


def is_down(name: str) -> bool:
    """Says whether a layer reads a feed-forward block's inner activations."""
    return name.rpartition(".")[2] in DOWN or ends_with(name, DOWN_IN_MLP)
