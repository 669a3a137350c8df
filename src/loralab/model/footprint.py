"""The memory that training takes, estimated from shapes alone.

Left out: the libraries themselves, gaps of the allocator, generation. Layers that are no `nn.Linear`, such
as the fused experts of some mixture models, count as weights only.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from loralab.config.schema import LoraConfig, QuantConfig
from loralab.losses.sft import CHUNK_POSITIONS
from loralab.model.lora import resolve_targets

FLOAT32_BYTES = 4
BLOCK, SUPERBLOCK = 64, 256
"""Weights that share a constant, and constants that share a second one (arXiv:2305.14314, section 3)."""


@dataclass(frozen=True)
class ModelSize:
    """The counts that memory and arithmetic follow from."""

    num_linear: int
    """Parameters of the linear layers without the output head: what is quantized."""
    num_other: int
    """All other parameters: embeddings, norms, output head."""
    num_adapter: int
    """Parameters of the adapter: r (in + out) for each adapted layer (arXiv:2106.09685, section 4.1)."""
    linear_features: int
    """Inputs plus outputs of all linear layers without the head: the numbers they pass on for one token."""
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


def measure_model(model: PreTrainedModel, lora: LoraConfig) -> ModelSize:
    """Counts a model, which may lie on the meta device as `load.skeleton` builds it.

    Raises:
        ConfigError: `lora.targets` names a layer that the model does not have.
    """
    targets, head = resolve_targets(model, lora.targets), model.get_output_embeddings()
    layers = [
        (name.rpartition(".")[2], layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head
    ]
    features = [layer.in_features + layer.out_features for _, layer in layers]
    adapted = [count for (name, _), count in zip(layers, features, strict=True) if name in targets]
    num_linear = sum(layer.weight.numel() for _, layer in layers)
    largest = max((layer for _, layer in layers), key=lambda layer: layer.weight.numel())
    text = model.config.get_text_config()
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelSize(
        num_linear=num_linear,
        num_other=sum(parameter.numel() for parameter in model.parameters()) - num_linear,
        num_adapter=lora.r * sum(adapted),
        linear_features=sum(features),
        largest_linear=(largest.out_features, largest.in_features),
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        attention_size=text.num_attention_heads * head_size,
        vocab_size=text.vocab_size,
    )


def bits_per_parameter(quant: QuantConfig, dtype: torch.dtype) -> float:
    """Returns the storage of a linear layer's weight: 4.127 bits in NF4 with double quantization.

    4 + 8 / 64 + 32 / (64 x 256) with double quantization, else 4 + 32 / 64 (arXiv:2305.14314, section 3).
    """
    if quant.name == "none":
        return 8 * dtype.itemsize
    return 4 + (8 / BLOCK + 32 / (BLOCK * SUPERBLOCK) if quant.double_quant else 32 / BLOCK)


def estimate_memory(
    size: ModelSize, quant: QuantConfig, dtype: torch.dtype, tokens: int, checkpointing: bool
) -> dict[str, int]:
    """Estimates the bytes of each part of training.

    - Linear weights take their bits per parameter, other weights the compute dtype.
    - The adapter takes the compute dtype, and in float32 masters, gradient and AdamW's two moments.
    - Activations are the input and output of every linear layer for each token: close to what the backward
      pass keeps of attention, norms and gates, where fused attention keeps no scores. With gradient
      checkpointing they are one hidden state per layer plus one layer of these.
    - Logits, and their gradient, are float32 of at most `CHUNK_POSITIONS` positions.

    Args:
        size: The model.
        quant: How the linear layers are stored.
        dtype: Compute dtype.
        tokens: Tokens of the largest micro-batch, padding included.
        checkpointing: Whether activations are recomputed in the backward pass.
    """
    features: float = size.linear_features
    if checkpointing:
        features = size.num_layers * size.hidden_size + size.linear_features / size.num_layers
    return {
        "linear weights": round(size.num_linear * bits_per_parameter(quant, dtype) / 8),
        "other weights": size.num_other * dtype.itemsize,
        "adapter and optimizer": size.num_adapter * (dtype.itemsize + 4 * FLOAT32_BYTES),
        "activations": round(tokens * features * dtype.itemsize),
        "logits": 2 * min(tokens, CHUNK_POSITIONS) * size.vocab_size * FLOAT32_BYTES,
    }
