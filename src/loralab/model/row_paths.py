"""Which rows may be computed together, and which side by side: what a model and a run allow."""

from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from loralab.config.schema import TrainConfig
from loralab.model.attention_choice import runs_on_flash
from loralab.model.quantize import linear_layers

RANDOM = ("drop", "jitter")
"""Parts of the names of what layers leave out or shake in training."""
MOVING = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies follow the longest row."""


def shares_prefix(base: PreTrainedModel, config: TrainConfig, is_training: bool = True) -> bool:
    """Says whether what rows begin with is computed once: not where something random tells copies apart.

    Args:
        base: The base, with the adapter in it or yet without.
        config: The run.
        is_training: Whether what is random only in training counts.
    """
    may_share = config.trainer.speed.shared_prefix and not runs_on_flash(base)
    return may_share and not (is_training and is_random(base, config))


def runs_side_by_side(base: PreTrainedModel, config: TrainConfig, device_type: str) -> bool:
    """Says whether several threads may run the model at once, each on rows of its own.

    Not where random numbers must come in order, where a pass changes what another one reads, where processes
    put layers together for a pass, or where PyTorch's compiler may be at work, which serves one thread.

    Args:
        base: The base, with the adapter in it or yet without.
        config: The run.
        device_type: cpu or cuda.
    """
    trainer = config.trainer
    may_run = trainer.speed.parallel_rows and not trainer.speed.compile and trainer.num_shards == 1
    return may_run and device_type == "cpu" and not is_random(base, config) and not keeps_state(base)


def num_row_threads(base: PreTrainedModel, config: TrainConfig, device_type: str) -> int:
    """Returns how many threads rows may be dealt to; 1 where all threads work on the same ones."""
    return torch.get_num_threads() if runs_side_by_side(base, config, device_type) else 1


def cost_of_target(base: PreTrainedModel) -> float:
    """Returns how much the output head computes for a token, as a multiple of what the layers do."""
    text = base.config.get_text_config()
    # Packed weights are fewer numbers than they stand for; GPT-2's layers are not packed, nor nn.Linear.
    num_weights = sum(
        layer.in_features * layer.out_features
        if isinstance(layer, nn.Linear)
        else cast(Tensor, layer.weight).numel()
        for _, layer in linear_layers(base)
    )
    return text.vocab_size * text.hidden_size / num_weights if num_weights else 0.0


def is_random(model: nn.Module, config: TrainConfig) -> bool:
    """Says whether something random tells apart what is computed of equal tokens in training."""
    return config.trainer.neftune_alpha > 0 or config.lora.dropout > 0 or has_dropout(model)


def has_dropout(model: nn.Module) -> bool:
    """Says whether any layer of a model is random in training."""
    return any(
        (isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0)
        or any(_varies(name) and isinstance(each, float) and each > 0 for name, each in vars(layer).items())
        for layer in model.modules()
    )


def keeps_state(model: nn.Module) -> bool:
    """Says whether a forward pass changes what another one reads: frequencies that follow the length do."""
    kinds = (str(getattr(module, "rope_type", "")) for module in model.modules())
    return any(moving in kind for kind in kinds for moving in MOVING)


def _varies(name: str) -> bool:
    return any(part in name for part in RANDOM)
