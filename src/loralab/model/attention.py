"""Attention that keeps the documents of a packed row apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from loralab.data.packing import document_bounds, document_positions
from loralab.errors import ModelError

DOCUMENT_ATTENTION = "loralab_documents"
"""Name of this attention among the implementations of transformers."""

PROBE_LENGTHS = (5, 7)
"""Tokens of the two documents that a model is tried with."""
MOST_ROUNDING = 1e-3
"""Largest difference that passes for rounding, as a share of what full sight of a neighbour changes."""
MOST_ROUNDING_HALF = 0.1
"""The same for 16-bit types."""
MOST_VARLEN_DIM = 256
"""Largest head that FlashAttention takes."""


def enable_document_attention(model: PreTrainedModel) -> None:
    """Lets a model take packed rows, told apart by `document_arguments`; padded batches run as before.

    FlashAttention, where the model runs on it, knows packed rows already; any other implementation is
    replaced. Before that, two short documents go through the model apart and packed: architectures that
    mix tokens outside attention, or do not hand arguments on to it, are found by what they compute.

    Raises:
        ModelError: Documents of one row would not be kept apart.
    """
    original = model.config._attn_implementation
    if original == DOCUMENT_ATTENTION:
        return
    _refuse_known_obstacles(model)
    # A model without weights can only be looked at.
    probing = model.device.type != "meta"
    apart, leaked = _run_apart(model) if probing else (torch.empty(0), torch.empty(0))
    if not _is_flash(model):
        AttentionInterface.register(DOCUMENT_ATTENTION, document_attention)
        AttentionMaskInterface.register(DOCUMENT_ATTENTION, sdpa_mask)
        model.set_attn_implementation(DOCUMENT_ATTENTION)
    rounding = MOST_ROUNDING if model.dtype == torch.float32 else MOST_ROUNDING_HALF
    try:
        if probing and (_run_packed(model) - apart).norm() > rounding * (leaked - apart).norm():
            raise _refusal(model, "documents of one row would see each other")
    except Exception:
        model.set_attn_implementation(original)
        raise


def document_arguments(
    model: PreTrainedModel, bounds: tuple[int, ...], device: torch.device
) -> dict[str, Any]:
    """Returns the arguments, beside ids and positions, with which `model.base_model` takes packed rows.

    They travel as arguments because recomputation under gradient checkpointing sees the arguments of its
    own forward pass, whatever ran since. Nothing here waits for the device.

    Args:
        model: A model prepared by `enable_document_attention`.
        bounds: Where documents begin in the rows laid end to end, and the end (`document_bounds`).
        device: Where the model runs.
    """
    arguments: dict[str, Any] = {"attention_mask": None}
    if not _is_flash(model):
        # transformers hands on a mask of four dimensions as it is; for none it builds [rows, 1, seq, seq].
        arguments["attention_mask"] = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=device)
        arguments["document_bounds"] = bounds
    if _is_flash(model) or device.type == "cuda":
        cu_seqlens = torch.tensor(bounds, dtype=torch.int32).to(device, non_blocking=True)
        longest = max(_lengths(bounds))
        arguments |= {"cu_seq_lens_q": cu_seqlens, "cu_seq_lens_k": cu_seqlens}
        arguments |= {"max_length_q": longest, "max_length_k": longest}
    return arguments


def document_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Runs attention inside each document where `document_bounds` are given, else as transformers' `sdpa`.

    Called by transformers in place of its own attention functions.

    Args:
        module: The attention layer.
        query: [rows, heads, seq, dim]
        key: [rows, key heads, seq, dim]
        value: [rows, key heads, seq, value dim]
        attention_mask: [rows, 1, seq, keys], true where a token is seen; None is causal.
        **kwargs: `scaling`, `dropout`, `sliding_window`, `softcap`, `s_aux` and others that layers pass.

    Returns:
        [rows, seq, heads, value dim], and None in place of the attention weights.
    """
    bounds = kwargs.pop("document_bounds", None)
    if bounds is None:
        return _attend(module, query, key, value, attention_mask, **kwargs), None
    _check_layer(module, attention_mask, kwargs)
    # [rows * seq, heads, dim]; a view where the projections were laid out by token, as they are.
    tokens = tuple(tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    window = _sliding_window(module, kwargs)
    if _fits_varlen(query, key, value, kwargs):
        output = _attend_varlen(tokens, window, kwargs)
    else:
        output = _attend_each(module, tokens, _lengths(bounds), window, kwargs)
    return output.unflatten(0, (query.shape[0], query.shape[2])), None


def _attend_each(
    module: nn.Module, tokens: tuple[Tensor, ...], lengths: list[int], window: int | None, kwargs: Any
) -> Tensor:
    """Attends document by document; a mask is needed only where one is longer than the sliding window."""
    outputs = []
    # Splitting joins the gradients of the documents in one copy, where slices would add them up at full size.
    for document in zip(*(tensor.split(lengths) for tensor in tokens), strict=True):
        query, key, value = (tensor.transpose(0, 1).unsqueeze(0) for tensor in document)
        mask = None
        if window is not None and query.shape[2] > window:
            mask = query.new_ones(query.shape[2], query.shape[2], dtype=torch.bool).tril().triu(1 - window)
        outputs.append(_attend(module, query, key, value, mask, **kwargs).squeeze(0))
    return torch.cat(outputs)


def _attend_varlen(tokens: tuple[Tensor, ...], window: int | None, kwargs: Any) -> Tensor:
    """Attends to all documents in one kernel (FlashAttention-2, arXiv:2307.08691)."""
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


def _fits_varlen(query: Tensor, key: Tensor, value: Tensor, kwargs: Any) -> bool:
    return (
        query.device.type == "cuda"
        and query.dtype == key.dtype == value.dtype
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] == value.shape[-1] <= MOST_VARLEN_DIM
        and not _needs_eager(kwargs)
        and not kwargs.get("dropout")
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> Tensor:
    """Returns [rows, seq, heads, dim]."""
    if _needs_eager(kwargs):
        return _attend_eager(module, query, key, value, mask, kwargs)
    output: Tensor = sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0]
    return output


def _needs_eager(kwargs: Any) -> bool:
    return kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None


def _attend_eager(
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


def _sliding_window(module: nn.Module, kwargs: Any) -> int | None:
    """The layer's window: what it passes, or what transformers builds its mask from if it passes none."""
    if "sliding_window" in kwargs:
        return kwargs["sliding_window"] or None
    config = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[module.layer_idx] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None) or None


def _check_layer(module: nn.Module, attention_mask: Tensor | None, kwargs: Any) -> None:
    causal = kwargs.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise ValueError("its attention is not causal")
    if (attention_mask is not None and attention_mask.numel() > 1) or kwargs.get("position_bias") is not None:
        raise ValueError("its layers make attention masks of their own")


def _lengths(bounds: tuple[int, ...]) -> list[int]:
    return [end - start for start, end in pairwise(bounds)]


def _is_flash(model: PreTrainedModel) -> bool:
    return "flash" in model.config._attn_implementation


def _refusal(model: PreTrainedModel, reason: str) -> ModelError:
    return ModelError(
        f"packing is not possible with {type(model).__name__}: {reason}. Use data.packing=false."
    )


def _refuse_known_obstacles(model: PreTrainedModel) -> None:
    config = model.config.get_text_config()
    if getattr(model, "_is_stateful", False):
        raise _refusal(model, "it carries a state from token to token, across documents")
    if getattr(config, "attention_chunk_size", None):
        raise _refusal(model, "it attends in chunks counted from the beginning of a row")
    if not model._can_set_attn_implementation():
        raise _refusal(model, "its attention cannot be replaced")


def _run_apart(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Hidden states of the probe's documents, each alone, and of both read as one."""
    first, second = PROBE_LENGTHS
    ids = _probe_ids(model)
    padded = torch.stack([ids[0, :second], ids[0, first:]])
    mask = torch.ones_like(padded)
    mask[0, first:] = 0
    with _evaluating(model):
        alone = _hidden(model, padded, attention_mask=mask)
        joined = _hidden(model, ids, attention_mask=torch.ones_like(ids))
    return torch.cat([alone[0, :first], alone[1]]), joined[0]


def _run_packed(model: PreTrainedModel) -> Tensor:
    ids = _probe_ids(model)
    bounds = document_bounds([PROBE_LENGTHS], ids.shape[1])
    positions = torch.from_numpy(document_positions(bounds)).to(ids.device).unsqueeze(0)
    try:
        with _evaluating(model):
            arguments = document_arguments(model, bounds, ids.device)
            return _hidden(model, ids, position_ids=positions, **arguments)[0]
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _refusal(model, reason) from error


def _probe_ids(model: PreTrainedModel) -> Tensor:
    vocabulary: int = model.config.get_text_config().vocab_size
    return (torch.arange(sum(PROBE_LENGTHS), device=model.device) * 7 + 3).unsqueeze(0) % vocabulary


def _hidden(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> Tensor:
    hidden: Tensor = model.base_model(input_ids=ids, use_cache=False, **kwargs).last_hidden_state
    return hidden.float()


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
