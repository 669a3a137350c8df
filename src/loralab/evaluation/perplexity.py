"""Negative log likelihood of response tokens."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from lightning.fabric.utilities import move_data_to_device
from peft import PeftModel

from loralab.data.collate import MicroBatch
from loralab.losses.parts import SourceMeans, several
from loralab.model.lora import causal_lm
from loralab.modules.sft import token_losses


@dataclass(frozen=True)
class MeanNll:
    """Mean negative log likelihood over supervised tokens, in nats."""

    mean: float
    """Over all of them."""
    by_source: dict[str, float] = field(default_factory=dict)
    """Over those of each source; empty where there is one."""


@torch.inference_mode()
def mean_nll(
    model: PeftModel, batches: Iterable[MicroBatch], source_names: Sequence[str] = ("data",)
) -> MeanNll:
    """Measures the mean negative log likelihood over all supervised tokens, by their weights.

    Args:
        model: An adapted model; `disable_adapter` around the call measures the base.
        batches: Padded examples, on any device.
        source_names: Name of each source that the examples count in.
    """
    device = causal_lm(model).device
    means = SourceMeans(len(source_names)).to(device)
    for batch in batches:
        means.update(token_losses(model, move_data_to_device(batch, device)))
    mean, *by_source = means.compute().tolist()
    named = zip(source_names, by_source, strict=True)
    return MeanNll(mean, several({name: nll for name, nll in named if not math.isnan(nll)}))
