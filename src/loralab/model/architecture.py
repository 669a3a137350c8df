"""What kind of model a `config.json` describes, and the class that builds it."""

from typing import cast

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from loralab.config.model import ModelConfig
from loralab.errors import ModelError
from loralab.model.location import model_location

OTHER_INPUTS = ("vision", "audio", "vq")
"""Words in the names of sub-configs by which a model reads something beside text."""


def check_causal(config: ModelConfig, model_config: PreTrainedConfig) -> None:
    """Refuses models that do not predict the next token of a text.

    Raises:
        ModelError: It is an encoder, an encoder-decoder, or reads images or sound.
    """
    if (reason := _why_not_causal(config, model_config)) is not None:
        raise ModelError(f"model={config.name} is not a causal language model: {reason}.")


def causal_class(config: ModelConfig, model_config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Returns the class that builds a causal language model.

    Args:
        config: Where the model's own code lies, if it brings any.
        model_config: A config that `check_causal` lets pass.
    """
    if _own_code(config, model_config):
        reference = model_config.auto_map["AutoModelForCausalLM"]
        own = get_class_from_dynamic_module(reference, model_location(config), code_revision=config.revision)
        return cast(type[PreTrainedModel], own)
    found = MODEL_FOR_CAUSAL_LM_MAPPING[type(model_config)]
    # A few configs stand for several classes; the auto class then takes the first.
    return cast(type[PreTrainedModel], found[0] if isinstance(found, tuple) else found)


def _why_not_causal(config: ModelConfig, model_config: PreTrainedConfig) -> str | None:
    kind = model_config.model_type
    if getattr(model_config, "is_encoder_decoder", False):
        return f"{kind} is an encoder-decoder, which answers a text instead of continuing it"
    for name in getattr(type(model_config), "sub_configs", {}):
        if any(word in name for word in OTHER_INPUTS) and getattr(model_config, name, None) is not None:
            return f"{kind} also reads images or sound ({name}). Give its text model"
    if _own_code(config, model_config):
        return None
    if type(model_config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return f"transformers knows none of type {kind!r}"
    # Their decoder variants say so in the config; without that, every token would see those it is to predict.
    if type(model_config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(model_config, "is_decoder", False):
        return f"{kind} is an encoder, which reads a text in both directions"
    return None


def _own_code(config: ModelConfig, model_config: PreTrainedConfig) -> bool:
    auto_map = getattr(model_config, "auto_map", None) or {}
    return config.trust_remote_code and "AutoModelForCausalLM" in auto_map
