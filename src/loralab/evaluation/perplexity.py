"""Negative log likelihood of response tokens."""

from collections.abc import Iterable

import torch
from peft import PeftModel

from loralab.data.collate import MicroBatch
from loralab.losses.sft import cross_entropy_sum, supervised_positions
from loralab.model.head import hidden_states, projection
from loralab.model.lora import causal_lm


@torch.inference_mode()
def mean_nll(model: PeftModel, batches: Iterable[MicroBatch]) -> float:
    """Returns the mean negative log likelihood over all supervised tokens, in nats.

    Args:
        model: An adapted model; `disable_adapter` around the call measures the base.
        batches: Padded examples, on any device.
    """
    base = causal_lm(model)
    project = projection(base)
    total, num_tokens = 0.0, 0
    for batch in batches:
        moved = MicroBatch(*(tensor.to(base.device) for tensor in batch))
        hidden, targets = supervised_positions(
            hidden_states(base, moved.input_ids, moved.attention_mask), moved.labels
        )
        total += float(cross_entropy_sum(hidden, targets, project))
        num_tokens += len(targets)
    return total / num_tokens
