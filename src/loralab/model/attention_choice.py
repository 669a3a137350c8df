"""Which of transformers' attention implementations a model runs on, and why."""

from dataclasses import dataclass
from importlib.metadata import version

import torch
from packaging.version import Version
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from loralab.config.model import ModelConfig
from loralab.errors import ConfigError
from loralab.model.architecture import causal_class
from loralab.model.hardware import gpu_capability
from loralab.model.varlen_attention import has_varlen

FLASH = "flash_attention_2"
LEAST_FLASH_CAPABILITY = (8, 0)
"""First NVIDIA compute capability of FlashAttention-2 (Ampere)."""
MOST_FLASH_DIM = 256
"""Largest head that FlashAttention-2 takes."""
FIRST_CAPPED_FLASH = Version("2.6")
"""First flash-attn that can cap logits."""
CAP_NAME = "attn_logit_softcapping"
"""How configs call the cap on attention logits (Gemma 2, arXiv:2408.00118, section 2)."""


@dataclass(frozen=True)
class AttentionChoice:
    """An attention implementation."""

    name: str
    """As transformers calls it: sdpa, eager or flash_attention_2."""
    reason: str
    """Why, in words to print."""


def choose_attention(
    config: ModelConfig,
    model_config: PreTrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
    packing: bool,
) -> AttentionChoice:
    """Picks the fastest attention that computes what the model's authors meant, or checks the user's choice.

    Args:
        config: `model.attention`, and where the model lies.
        model_config: The model's architecture.
        device: Where it runs.
        dtype: What it computes in.
        packing: Whether rows hold several documents.

    Raises:
        ConfigError: The choice in the config cannot run here.
    """
    model_class = causal_class(config, model_config)
    no_flash = _flash_obstacle(model_class, model_config, device, dtype)
    no_sdpa = _sdpa_obstacle(model_class, model_config)
    # Packed rows of all but FlashAttention run on `model.attention`, which knows caps and sinks.
    packed = "; rows laid end to end run on document attention" if packing else ""
    if config.attention == "auto":
        if no_flash is None:
            return AttentionChoice(FLASH, "installed, and this GPU runs it")
        if no_sdpa is None:
            return AttentionChoice("sdpa", f"{FLASH} is out: {no_flash}{packed}")
        return AttentionChoice("eager", f"sdpa is out: {no_sdpa}; {FLASH} is out: {no_flash}{packed}")
    obstacle = {FLASH: no_flash, "sdpa": no_sdpa}.get(config.attention)
    if obstacle is not None:
        raise ConfigError(
            f"model.attention={config.attention} cannot run here: {obstacle}. Use model.attention=auto."
        )
    return AttentionChoice(
        config.attention, f"model.attention={config.attention}{'' if config.attention == FLASH else packed}"
    )


def runs_without_padding(model_config: PreTrainedConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Says whether rows laid end to end are faster than padded ones.

    On a CPU they are; on a GPU where one kernel takes all documents: else it would run many small ones.

    Args:
        model_config: The model's architecture.
        device: Where it runs.
        dtype: What it computes in.
    """
    fits = logit_cap(model_config) is None and _head_dim(model_config) <= MOST_FLASH_DIM
    return device.type != "cuda" or (fits and has_varlen(device, dtype))


def runs_on_flash(model: PreTrainedModel) -> bool:
    """Says whether a model runs on FlashAttention, of whichever version."""
    return "flash" in model.config._attn_implementation


def logit_cap(model_config: PreTrainedConfig) -> float | None:
    """Returns what the model caps its attention logits at; None for no cap."""
    cap = getattr(model_config.get_text_config(), CAP_NAME, None)
    return None if cap is None else float(cap)


def _sdpa_obstacle(model_class: type[PreTrainedModel], model_config: PreTrainedConfig) -> str | None:
    if logit_cap(model_config) is not None:
        return "it cannot cap attention logits, which this model does"
    if not model_class._supports_sdpa:
        return f"{model_class.__name__} has no implementation for it"
    return None


def _flash_obstacle(
    model_class: type[PreTrainedModel],
    model_config: PreTrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
) -> str | None:
    return _flash_obstacle_here(device, dtype) or _flash_obstacle_of(model_class, model_config)


def _flash_obstacle_here(device: torch.device, dtype: torch.dtype) -> str | None:
    """What of the machine and the run keeps FlashAttention-2 out."""
    capability = gpu_capability(device)
    if device.type != "cuda":
        return "it needs a GPU"
    if capability is not None and capability < LEAST_FLASH_CAPABILITY:
        return f"it needs a GPU of compute capability 8.0, this one has {capability[0]}.{capability[1]}"
    if dtype == torch.float32:
        return "it computes in 16 bits, the run in float32"
    if not is_flash_attn_2_available():
        return "the package flash-attn is not installed"
    return None


def _flash_obstacle_of(model_class: type[PreTrainedModel], model_config: PreTrainedConfig) -> str | None:
    """What of the model keeps FlashAttention-2 out."""
    allowed = getattr(model_class, "_compatible_flash_implementations", None)
    if not model_class._supports_flash_attn or (allowed is not None and FLASH not in allowed):
        return f"{model_class.__name__} has no implementation for it"
    if (head_dim := _head_dim(model_config)) > MOST_FLASH_DIM:
        return f"it takes heads of {MOST_FLASH_DIM}, the model has {head_dim}"
    if logit_cap(model_config) is not None and Version(version("flash-attn")) < FIRST_CAPPED_FLASH:
        return (
            f"flash-attn older than {FIRST_CAPPED_FLASH} cannot cap attention logits, which this model does"
        )
    return None


def _head_dim(model_config: PreTrainedConfig) -> int:
    """Width of an attention head; 0 where the config does not tell."""
    text = model_config.get_text_config()
    if (given := getattr(text, "head_dim", None)) is not None:
        return int(given)
    heads = getattr(text, "num_attention_heads", None)
    return int(text.hidden_size // heads) if isinstance(heads, int) and heads else 0
