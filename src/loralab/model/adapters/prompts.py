"""Methods that learn virtual tokens before the text and leave every layer as it is."""

import itertools
from typing import Any, NamedTuple, cast

import peft
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext

PREFIX_STD = 0.02
"""Spread of the first keys and values of a prefix. PEFT's own, 1, drowns the text: the loss of the embedded
model starts at 12.1 instead of 2.4. At 0 all virtual tokens would get the same gradients for ever."""


class CacheShape(NamedTuple):
    """What a decoder keeps of each token."""

    num_layers: int
    num_heads: int
    head_dim: int


@torch.no_grad()
def cache_shape(model: PreTrainedModel) -> CacheShape:
    """Lets a model read one token and looks at the keys and values that it keeps.

    Raises:
        ConfigError: They differ between layers or from each other, or there are none.
    """
    token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    cache = getattr(model.base_model(input_ids=token, use_cache=True), "past_key_values", None)
    layers = getattr(cache, "layers", [])
    shapes = {
        tuple(states.shape)
        for layer in layers
        for states in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if states is not None
    }
    if len(shapes) != 1:
        raise _no_prefix(model, "its layers keep no keys and values of one shape")
    _, num_heads, _, head_dim = shapes.pop()
    return CacheShape(len(layers), num_heads, head_dim)


def prefix_config(model: PreTrainedModel, lora: LoraConfig, context: AdapterContext) -> peft.PeftConfig:
    """Builds PEFT's config of prefix tuning (arXiv:2101.00190): learned keys and values in every layer.

    The prefix is learned as it is, without the network that the paper computes it from while training:
    that would be a tenth of a small model.

    Raises:
        ConfigError: The model's layers cannot take a prefix.
    """
    shape = cache_shape(model)
    return peft.PrefixTuningConfig(
        num_virtual_tokens=lora.virtual_tokens,
        num_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        token_dim=shape.num_heads * shape.head_dim,
        task_type="CAUSAL_LM",
    )


def prompt_config(model: PreTrainedModel, lora: LoraConfig, context: AdapterContext) -> peft.PeftConfig:
    """Builds PEFT's config of prompt tuning (arXiv:2104.08691): learned input embeddings.

    They start from a text, or from tokens of the vocabulary drawn at random (section 3.2).
    """
    return peft.PromptTuningConfig(
        num_virtual_tokens=lora.virtual_tokens,
        num_attention_heads=_num_heads(model),
        prompt_tuning_init="RANDOM" if lora.prompt_text is not None else "SAMPLE_VOCAB",
        task_type="CAUSAL_LM",
    )


def ptuning_config(model: PreTrainedModel, lora: LoraConfig, context: AdapterContext) -> peft.PeftConfig:
    """Builds PEFT's config of P-tuning (arXiv:2103.10385): input embeddings that a small network computes."""
    return peft.PromptEncoderConfig(
        num_virtual_tokens=lora.virtual_tokens,
        num_attention_heads=_num_heads(model),
        task_type="CAUSAL_LM",
    )


def _num_heads(model: PreTrainedModel) -> int:
    """Answers what PEFT asks for, under fewer names than models have, and makes no use of here."""
    config = model.config.get_text_config()
    heads: int | None = getattr(config, "num_attention_heads", None) or getattr(config, "n_heads", None)
    return heads or 1


@torch.no_grad()
def start_prefix(model: PeftModel) -> None:
    """Draws the first keys and values of a prefix closer to zero than PEFT does.

    Raises:
        ConfigError: PEFT took another shape from the model's config than its layers have.
    """
    base, config = cast(PreTrainedModel, model.get_base_model()), model.active_peft_config
    shape = cache_shape(base)
    if (config.num_attention_heads, config.token_dim) != (shape.num_heads, shape.num_heads * shape.head_dim):
        raise _no_prefix(base, "PEFT does not know the shape of its keys and values")
    torch.nn.init.normal_(_learned(model), std=PREFIX_STD)


def _learned(model: PeftModel) -> Tensor:
    encoder: Any = model.prompt_encoder[model.active_adapter]
    return cast(Tensor, encoder.embedding.weight)


def _no_prefix(model: PreTrainedModel, reason: str) -> ConfigError:
    return ConfigError(
        f"lora.method=prefix cannot be put on {type(model).__name__}: {reason}. "
        "Use lora.method=prompt or ptuning, which learn input embeddings instead."
    )


@torch.no_grad()
def start_from_text(model: PeftModel, text: str, context: AdapterContext) -> None:
    """Sets the virtual tokens of prompt tuning to the embeddings of a text, repeated or cut to their number.

    Raises:
        ConfigError: The text has no token.
    """
    assert context.tokenizer is not None, "a run always has its tokenizer"
    ids = context.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError(f"lora.prompt_text={text!r} has no token to start from. Give a text, or null.")
    start = _learned(model)
    words = cast(PreTrainedModel, model.get_base_model()).get_input_embeddings()
    chosen = list(itertools.islice(itertools.cycle(ids), len(start)))
    start.copy_(words(torch.tensor(chosen, device=start.device)))
