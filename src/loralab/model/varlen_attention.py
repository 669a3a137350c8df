"""Attention inside documents in one kernel of an NVIDIA GPU."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

MOST_VARLEN_DIM = 256
"""Largest head that FlashAttention takes."""


def attend_varlen(tokens: tuple[Tensor, ...], window: int | None, kwargs: Any) -> Tensor:
    """Attends to all documents in one kernel (FlashAttention-2, arXiv:2307.08691).

    Args:
        tokens: Queries, keys and values: [tokens, heads, dim] each.
        window: Tokens that each sees, itself included; None is all before it.
        kwargs: `cu_seq_lens_q`, `max_length_q` and `scaling`.

    Returns:
        [tokens, heads, dim]
    """
    # Every head gets its key: not every torch in our range takes fewer keys than queries.
    heads = tokens[0].shape[1]
    query, key, value = (
        tensor.repeat_interleave(heads // tensor.shape[1], dim=1) if tensor.shape[1] < heads else tensor
        for tensor in tokens
    )
    bounds, longest = kwargs["cu_seq_lens_q"], kwargs["max_length_q"]
    output = varlen_attn(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        scale=kwargs.get("scaling"),
        window_size=(-1 if window is None else window - 1, 0),
    )
    return cast(Tensor, output)


def fits_varlen(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the kernel takes heads of this size and dtype, on this device; dim is the last dimension."""
    return (
        query.dtype == key.dtype == value.dtype
        and query.shape[-1] == value.shape[-1] <= MOST_VARLEN_DIM
        and has_varlen(query.device, query.dtype)
    )


def has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel runs on a device (compute capability 8.0, Ampere) and in a dtype."""
    half = dtype in (torch.float16, torch.bfloat16)
    return device.type == "cuda" and half and torch.cuda.get_device_capability(device) >= (8, 0)
