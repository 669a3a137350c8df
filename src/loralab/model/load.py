"""Loading architectures and frozen base models from the cache, a folder or the Hub."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from loralab.config.model import ModelConfig, QuantConfig
from loralab.errors import ConfigError, ModelError
from loralab.model.architecture import check_causal
from loralab.model.attention_choice import choose_attention
from loralab.model.gguf_file import check_complete
from loralab.model.hardware import check_quantization, gpu_capability
from loralab.model.head import check_projection
from loralab.model.location import REVISION, check_reachable, loading_failed, model_location
from loralab.model.messages import first_line
from loralab.model.prequantized import (
    cast_unquantized,
    check_stored,
    set_compute_dtype,
    trainable_prequantized,
)
from loralab.model.quantize import keep_cpu_gradients, quantization_config
from loralab.model.shards import reading_tensor_by_tensor
from loralab.model.tokenizer import load_tokenizer, resize_for


def quiet_libraries() -> None:
    """Turns off progress bars and start-up notes of the libraries; our own messages say what matters."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for module in ("transformers", "peft", "lightning"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    for name in ("bitsandbytes", "huggingface_hub", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def load_config(config: ModelConfig) -> PreTrainedConfig:
    """Reads a model's architecture; no weights.

    Raises:
        ModelError: The model does not exist, cannot be reached, or is no causal language model.
    """
    location = model_location(config)
    check_reachable(config, location)
    try:
        loaded: PreTrainedConfig = AutoConfig.from_pretrained(
            location, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(loading_failed(config, location, error)) from error
    except (AttributeError, TypeError, KeyError) as error:
        # A value that no check of transformers looks at, such as a dtype that PyTorch does not have.
        raise ModelError(
            f"config.json of {location} is no description of a model: {first_line(error)}"
        ) from error
    check_causal(config, loaded)
    return loaded


def plan_config(config: ModelConfig) -> PreTrainedConfig:
    """Finds out a model's architecture, asking the Hub last.

    The model's own file counts where it is on this machine; then what `model.architecture` says.

    Raises:
        ModelError: The architecture is none that transformers builds, or `load_config` fails.
    """
    location = model_location(config)
    if not config.architecture or is_here(config, location):
        return load_config(config)
    try:
        described: PreTrainedConfig = AutoConfig.for_model(**config.architecture)
    except (TypeError, ValueError, KeyError, StrictDataclassError) as error:
        # transformers goes on to list every model type.
        reason = " ".join(str(error).split()).partition(" Should contain")[0].rstrip(".")
        raise ModelError(
            f"model.architecture of model={config.name} describes no model that transformers knows: {reason}."
            " Give model_type and its sizes as in the model's config.json."
        ) from error
    check_causal(config, described)
    return described


def is_here(config: ModelConfig, location: str) -> bool:
    """Whether a model's own `config.json` is in a folder or in the cache of the Hub."""
    if Path(location).is_dir():
        return True
    return isinstance(try_to_load_from_cache(location, "config.json", revision=config.revision), str)


def skeleton(config: ModelConfig, model_config: PreTrainedConfig) -> PreTrainedModel:
    """Builds the module tree of a model without any weights, to look names and shapes up in.

    Raises:
        ModelError: It is not a causal language model.
    """
    check_causal(config, model_config)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                model_config, trust_remote_code=config.trust_remote_code
            )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"model={config.name} is not a causal language model that can be built: {first_line(error)}"
        ) from error
    return model


def check_length(model_config: PreTrainedConfig, max_length: int, virtual_tokens: int = 0) -> None:
    """Refuses examples longer than the model's positions.

    Args:
        model_config: The architecture.
        max_length: `data.max_length`.
        virtual_tokens: Learned tokens that stand before each example.

    Raises:
        ConfigError: `data.max_length` is more than the model allows.
    """
    longest = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and max_length + virtual_tokens > longest:
        ahead = f" with {virtual_tokens} virtual tokens" if virtual_tokens else ""
        raise ConfigError(
            f"data.max_length={max_length}{ahead} is longer than the model allows: use "
            f"{longest - virtual_tokens} or less."
        )


def load_base(
    config: ModelConfig, quant: QuantConfig, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    """Loads the frozen base model, quantized tensor by tensor while it loads, with a row per added token.

    A base that is quantized already is loaded as it is.

    Args:
        config: Which model.
        quant: How its linear layers are stored.
        device: Where it goes.
        dtype: Compute dtype, and storage dtype of what is not quantized.

    Raises:
        ConfigError: This GPU cannot run the quantization or the attention that is asked for.
        ModelError: It cannot be loaded, lacks weights, is quantized so that no adapter can train on it, or
            makes logits in an unknown way.
    """
    model_config, location = load_config(config), model_location(config)
    attention = choose_attention(config, model_config, device, dtype, packing=False)
    found = trainable_prequantized(config, model_config)
    if found is not None:
        set_compute_dtype(model_config, found, dtype)
    check_quantization(found.scheme if found else quant.name, gpu_capability(device))
    quantized = None
    if found is None:
        # Names of layers to skip are looked up in the module tree.
        tree = skeleton(config, model_config) if quant.skip_modules else None
        quantized = quantization_config(quant, dtype, tree)
    try:
        with reading_tensor_by_tensor():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                location,
                config=model_config,
                revision=config.revision,
                trust_remote_code=config.trust_remote_code,
                dtype=dtype,
                attn_implementation=attention.name,
                quantization_config=quantized,
                device_map={"": device},
                output_loading_info=True,
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(loading_failed(config, location, error)) from error
    model, info = loaded
    check_complete(info, location)
    if found is not None and found.method == "bitsandbytes":
        check_stored(config, found, model)
        cast_unquantized(model, dtype)
    setattr(model, REVISION, config.revision)
    keep_cpu_gradients(model)
    check_projection(model)
    if config.added_tokens:
        resize_for(model, load_tokenizer(config), config)
    return cast(PreTrainedModel, model)
