"""The counts of a model that the arithmetic of a pass follows from."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor
from transformers import PreTrainedModel

from loralab.model.quantize import linear_layers


@dataclass(frozen=True)
class ModelSize:
    """Parameters and widths of a base model."""

    num_linear: int
    """Parameters of the linear layers without the output head: what is quantized."""
    num_other: int
    """All other parameters: embeddings, norms, output head."""
    largest_linear: tuple[int, int]
    """Outputs and inputs of the layer with the most parameters."""
    num_layers: int
    """Decoder layers."""
    hidden_size: int
    """Numbers that stand for a token between layers."""
    attention_size: int
    """Heads times the size of a head."""
    vocab_size: int
    """Outputs of the head."""


def measure_model(model: PreTrainedModel) -> ModelSize:
    """Counts a model, which may lie on the meta device as `load.skeleton` builds it."""
    weights = [cast(Tensor, layer.weight) for _, layer in linear_layers(model)]
    num_linear = sum(weight.numel() for weight in weights)
    largest = max(weights, key=lambda weight: weight.numel())
    text = model.config.get_text_config()
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelSize(
        num_linear=num_linear,
        num_other=sum(parameter.numel() for parameter in model.parameters()) - num_linear,
        largest_linear=(largest.shape[0], largest.shape[1]),
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        attention_size=text.num_attention_heads * head_size,
        vocab_size=text.vocab_size,
    )
