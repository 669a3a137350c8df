"""Adapter methods by name."""

from collections.abc import Callable, Mapping

import peft
from peft import PeftModel, PeftType
from torch import nn
from transformers import PreTrainedModel

from loralab.config.model import LoraConfig
from loralab.model.adapters.adalora import RankAllocation, adalora_config
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.ia3 import ia3_config
from loralab.model.adapters.lora import lora_config
from loralab.model.adapters.prompts import prefix_config, prompt_config, ptuning_config
from loralab.model.adapters.steps import StepHooks
from loralab.model.adapters.vera import vera_config

METHODS: dict[str, Callable[[PreTrainedModel, LoraConfig, AdapterContext], peft.PeftConfig]] = {
    "lora": lora_config,
    "adalora": adalora_config,
    "vera": vera_config,
    "ia3": ia3_config,
    "prefix": prefix_config,
    "prompt": prompt_config,
    "ptuning": ptuning_config,
}
"""Builders of PEFT configs by `lora.method`."""


def step_hooks(model: PeftModel, masters: Mapping[str, nn.Parameter]) -> StepHooks:
    """Returns what a model's adapter method does in a training step.

    Args:
        model: The adapted model.
        masters: What the optimizer updates, by the names of the model's parameters.
    """
    if model.active_peft_config.peft_type == PeftType.ADALORA:
        return RankAllocation(model, masters)
    return StepHooks()
