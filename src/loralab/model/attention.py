"""Attention that keeps the documents of a packed row apart."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from loralab.data.packing import document_bounds, document_positions
from loralab.data.shared_prefix import copies_of_documents
from loralab.errors import ModelError
from loralab.model.attention_choice import runs_on_flash, runs_without_padding
from loralab.model.block_attention import attend_in_blocks
from loralab.model.eager_attention import attend_eager, needs_eager
from loralab.model.varlen_attention import attend_varlen, fits_varlen

DOCUMENT_ATTENTION, BLOCK_ATTENTION = "loralab_documents", "loralab_blocks"
"""Names of this attention among the implementations of transformers, with PyTorch's kernels alone and with
`block_attention` where that is faster."""

COPIES = "document_copies"
"""Argument of layers: `DocumentCopies`, where documents share their beginning."""
PROBE_LENGTHS = (5, 7)
"""Tokens of the two documents that a model is tried with."""
MOST_ROUNDING = 1e-3
"""Largest difference that passes for rounding, as a share of what full sight of a neighbour changes."""
MOST_ROUNDING_HALF = 0.1
"""The same for 16-bit types."""
PREPARED = "keeps_documents_apart"
"""Attribute of models that `enable_document_attention` has prepared."""


def enable_document_attention(model: PreTrainedModel, in_blocks: bool = True) -> None:
    """Lets a model take packed rows, told apart by `document_arguments`; padded batches run as before.

    FlashAttention, where the model runs on it, knows packed rows already; any other implementation is
    replaced. Before that, two short documents go through the model apart and packed: architectures that
    mix tokens outside attention, or do not hand arguments on to it, are found by what they compute.

    Args:
        model: Changed in place.
        in_blocks: Whether `block_attention` runs where it is faster: on a CPU in bfloat16.

    Raises:
        ModelError: Documents of one row would not be kept apart.
    """
    original = model.config._attn_implementation
    name = BLOCK_ATTENTION if in_blocks else DOCUMENT_ATTENTION
    if original == name:
        return
    _refuse_known_obstacles(model)
    # A model without weights can only be looked at.
    probing = model.device.type != "meta"
    apart, leaked = _run_apart(model) if probing else (torch.empty(0), torch.empty(0))
    if not runs_on_flash(model):
        AttentionInterface.register(name, partial(document_attention, in_blocks=in_blocks))
        AttentionMaskInterface.register(name, sdpa_mask)
        model.set_attn_implementation(name)
    rounding = MOST_ROUNDING if model.dtype == torch.float32 else MOST_ROUNDING_HALF
    try:
        if probing and (_run_packed(model) - apart).norm() > rounding * (leaked - apart).norm():
            raise _refusal(model, "documents of one row would see each other")
    except Exception:
        model.set_attn_implementation(original)
        raise
    setattr(model, PREPARED, True)


def shares_beginnings(model: PreTrainedModel) -> bool:
    """Says whether a model takes documents whose common beginning stands once: not on FlashAttention."""
    return keeps_documents_apart(model) and not runs_on_flash(model)


def keeps_documents_apart(model: PreTrainedModel) -> bool:
    """Says whether a model takes packed rows."""
    return getattr(model, PREPARED, False)


def allow_padding_free(model: PreTrainedModel, in_blocks: bool = True) -> None:
    """Lets a model take rows without padding where that is faster; where it cannot, it stays as it is.

    Args:
        model: Changed in place.
        in_blocks: As in `enable_document_attention`.
    """
    if runs_without_padding(model.config, model.device, model.dtype):
        with suppress(ModelError):
            enable_document_attention(model, in_blocks)


def document_arguments(
    model: PreTrainedModel, bounds: tuple[int, ...], device: torch.device, is_shared: bool = False
) -> dict[str, Any]:
    """Returns the arguments, beside ids and positions, with which `model.base_model` takes packed rows.

    They travel as arguments because recomputation under gradient checkpointing sees the arguments of its
    own forward pass, whatever ran since. Nothing here waits for the device.

    Args:
        model: A model prepared by `enable_document_attention`.
        bounds: Where documents begin in the rows laid end to end, and the end (`document_bounds`).
        device: Where the model runs.
        is_shared: Whether the first document is the beginning of all others (`without_repeats`); not for
            models on FlashAttention.
    """
    arguments: dict[str, Any] = {"attention_mask": None}
    if not runs_on_flash(model):
        # transformers hands on a mask of four dimensions as it is; for none it builds [rows, 1, seq, seq].
        arguments["attention_mask"] = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=device)
        arguments["document_bounds"] = bounds
        if is_shared:
            arguments[COPIES] = copies_of_documents(bounds, device)
            bounds = arguments[COPIES].bounds
    if runs_on_flash(model) or device.type == "cuda":
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
        **kwargs: `scaling`, `dropout`, `sliding_window`, `softcap`, `s_aux` and others that layers pass; and
            `in_blocks`, whether `block_attention` may run.

    Returns:
        [rows, seq, heads, value dim], and None in place of the attention weights.
    """
    bounds, in_blocks = kwargs.pop("document_bounds", None), kwargs.pop("in_blocks", False)
    if bounds is None:
        return _attend(module, query, key, value, attention_mask, **kwargs), None
    _check_layer(module, attention_mask, kwargs)
    # [rows * seq, heads, dim]; a view where the projections were laid out by token, as they are.
    tokens = tuple(tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    window, is_plain, copies = _sliding_window(module, kwargs), not _needs_more(kwargs), kwargs.get(COPIES)
    whole = _lengths(bounds if copies is None else copies.bounds)
    if is_plain and in_blocks and _suits_blocks(query, whole, window):
        scaling, is_shared = kwargs.get("scaling"), copies is not None
        output = attend_in_blocks(tokens[0], tokens[1], tokens[2], _lengths(bounds), scaling, is_shared)
    else:
        tokens = tokens if copies is None else tuple(each.index_select(0, copies.places) for each in tokens)
        if is_plain and fits_varlen(query, key, value):
            output = attend_varlen(tokens, window, kwargs)
        else:
            output = _attend_each(module, tokens, whole, window, kwargs)
        output = output if copies is None else output.index_select(0, copies.kept)
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


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> Tensor:
    """Returns [rows, seq, heads, dim]."""
    if needs_eager(kwargs):
        return attend_eager(module, query, key, value, mask, kwargs)
    output: Tensor = sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0]
    return output


def _needs_more(kwargs: Any) -> bool:
    """Whether a layer asks for more than plain attention."""
    return needs_eager(kwargs) or bool(kwargs.get("dropout"))


def _suits_blocks(query: Tensor, lengths: list[int], window: int | None) -> bool:
    """Whether `block_attention` is faster: it is about even in float32, and knows no windows."""
    is_open = window is None or max(lengths) <= window
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and is_open


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
