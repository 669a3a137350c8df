"""Loading tokenizers and frozen base models from the cache, a folder or the Hub."""

import logging
import os
import warnings
from pathlib import Path

import torch
import transformers
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from lightning.fabric.utilities.warnings import PossibleUserWarning
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from loralab.config.schema import ModelConfig, QuantConfig
from loralab.errors import ConfigError, ModelError, did_you_mean
from loralab.model.embedded import embedded_model_dir
from loralab.model.quantize import keep_cpu_gradients, quantization_config


def quiet_libraries() -> None:
    """Turns off progress bars and start-up notes of the libraries; our own messages say what matters."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for module in ("transformers", "peft", "lightning"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    # Advice on worker processes; a step's batch is built in well under a millisecond.
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    for name in ("bitsandbytes", "huggingface_hub", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def model_location(config: ModelConfig) -> str:
    """Returns the folder or Hub name to load from; null in the config means the embedded model.

    Raises:
        ModelError: A folder is named that does not exist or holds no model.
    """
    if config.path is None:
        return str(embedded_model_dir())
    path = Path(config.path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"model.path={config.path!r} holds no config.json, so it is not a model folder.")
        return str(path)
    if (
        path.is_absolute()
        or config.path.startswith((".", "~"))
        or config.path.count("/") > 1
        or path.exists()
    ):
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        close = did_you_mean(path.name, siblings)
        raise ModelError(
            f"model.path={config.path!r} is not a folder.{close} Give a model folder or a Hub name."
        )
    return config.path


def load_config(config: ModelConfig) -> PreTrainedConfig:
    """Reads a model's architecture; no weights.

    Raises:
        ModelError: The model does not exist or cannot be reached.
    """
    location = model_location(config)
    _check_reachable(config, location)
    try:
        loaded: PreTrainedConfig = AutoConfig.from_pretrained(
            location, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        return loaded
    except (OSError, ValueError) as error:
        raise ModelError(_loading_failed(config, location, error)) from error


def skeleton(config: ModelConfig, model_config: PreTrainedConfig) -> PreTrainedModel:
    """Builds the module tree of a model without any weights, to look names and shapes up in.

    Raises:
        ModelError: It is not a causal language model.
    """
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                model_config, trust_remote_code=config.trust_remote_code
            )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"model={config.name} is not a causal language model that can be built: {_first_line(error)}"
        ) from error
    return model


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """Loads the tokenizer that belongs to a model and gives it a padding token.

    Labels come from spans, so a padding token that is the end-of-sequence token hides nothing from the loss.

    Raises:
        ModelError: It cannot be loaded, is not a fast tokenizer, which character spans need, or has no
            token to pad with.
    """
    location = model_location(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            location, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(_loading_failed(config, location, error)) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{location} has no fast tokenizer (tokenizer.json), which label spans need.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ModelError(f"{location} has no padding, unknown or end-of-sequence token to pad with.")
    return tokenizer


def check_length(model_config: PreTrainedConfig, max_length: int) -> None:
    """Refuses examples longer than the model's positions.

    Raises:
        ConfigError: `data.max_length` is more than the model allows.
    """
    longest = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and max_length > longest:
        raise ConfigError(
            f"data.max_length={max_length} is longer than the model allows: use {longest} or less."
        )


def load_base(
    config: ModelConfig, quant: QuantConfig, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    """Loads the frozen base model, quantized while it loads.

    Args:
        config: Which model.
        quant: How its linear layers are stored.
        device: Where it goes.
        dtype: Compute dtype, and storage dtype of what is not quantized.

    Raises:
        ModelError: It cannot be loaded or is quantized already.
    """
    model_config = load_config(config)
    if getattr(model_config, "quantization_config", None) is not None:
        raise ModelError(f"{config.path} is quantized already; training on such a base is not supported yet.")
    location = model_location(config)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            location,
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            dtype=dtype,
            attn_implementation=config.attention,
            quantization_config=quantization_config(quant, dtype),
            device_map={"": device},
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(_loading_failed(config, location, error)) from error
    keep_cpu_gradients(model)
    return model


def _check_reachable(config: ModelConfig, location: str) -> None:
    """Asks the Hub for one file's metadata, once: a download would retry for half a minute."""
    cached = Path(location).is_dir() or isinstance(
        try_to_load_from_cache(location, "config.json", revision=config.revision), str
    )
    if cached:
        return
    try:
        get_hf_file_metadata(hf_hub_url(location, "config.json", revision=config.revision), timeout=10)
    except Exception as error:  # the HTTP library beneath, and with it its errors, differ between versions
        raise ModelError(_loading_failed(config, location, error)) from error


def _loading_failed(config: ModelConfig, location: str, error: Exception) -> str:
    if Path(location).is_dir():
        return f"{location} cannot be loaded: {_first_line(error)}"
    return (
        f"model={config.name} needs {location!r} from the Hugging Face Hub, which has no such model, does "
        "not let this account read it, or cannot be reached. Check the name and the network, log in with "
        f"`hf auth login`, or give a folder with model.path=DIR. ({_first_line(error)})"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
