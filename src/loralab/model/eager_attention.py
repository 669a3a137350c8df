"""Attention that fused kernels cannot compute: capped logits and sinks."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import repeat_kv


def needs_eager(kwargs: Any) -> bool:
    """Whether a layer caps its logits or has sinks; kwargs are what it passes to its attention."""
    return kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None


def attend_eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: Any
) -> Tensor:
    """Computes what fused kernels cannot: soft-capped logits and attention sinks, as transformers' `eager`.

    The cap is `softcap * tanh(logits / softcap)` (Gemma 2, arXiv:2408.00118, section 2); a sink is one more
    logit per head that takes weight and gives nothing (gpt-oss, arXiv:2508.10925).
    """
    groups = query.shape[1] // key.shape[1]
    softcap, sinks = kwargs.get("softcap"), kwargs.get("s_aux")
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    logits = query @ repeat_kv(key, groups).transpose(2, 3) * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if mask is None and query.shape[2] > 1:
        mask = logits.new_ones(logits.shape[2:], dtype=torch.bool).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    if sinks is not None:
        logits = torch.cat([logits, sinks.view(1, -1, 1, 1).expand(*logits.shape[:3], 1)], dim=-1)
    weights = logits.softmax(dim=-1, dtype=torch.float32)[..., : key.shape[2]].to(query.dtype)
    weights = nn.functional.dropout(weights, kwargs.get("dropout", 0.0), module.training)
    return (weights @ repeat_kv(value, groups)).transpose(1, 2).contiguous()
