"""Causal attention inside documents as large matrix products, for CPUs.

PyTorch's own kernel for CPUs walks through its backward pass in products of single heads and small tiles.
Here a block of queries, of all heads that share a key at once, meets every key that it may see: few products,
each large, and none for pairs above the blocks of the diagonal. As in FlashAttention (arXiv:2205.14135,
algorithm 4) weights are not kept for the backward pass but computed again, a block at a time.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCK_QUERIES = 128
"""Tokens of a block: large enough for the products, small enough for its weights to stay in the cache."""


class _Block(NamedTuple):
    """Queries [start, end) of a document that begins at `first`; they see the keys [first, end)."""

    first: int
    start: int
    end: int


def attend_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scaling: float | None = None
) -> Tensor:
    """Lets every token attend to those before it in its document, and to itself.

    Args:
        query: [tokens, heads, dim], documents laid end to end.
        key: [tokens, key heads, dim]; query heads share one in groups (arXiv:2305.13245).
        value: [tokens, key heads, value dim]
        lengths: Tokens of each document.
        scaling: Factor of the products of queries and keys; None is 1 / sqrt(dim).

    Returns:
        [tokens, heads, value dim]
    """
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    output: Tensor = _BlockAttention.apply(query, key, value, tuple(lengths), factor)  # type: ignore[no-untyped-call]
    return output


class _BlockAttention(torch.autograd.Function):
    """O = P V with P = softmax(s Q K^T), and its gradients (arXiv:2205.14135, appendix B.2)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float
    ) -> Tensor:
        """Returns [tokens, heads, value dim]; keeps its inputs alone."""
        ctx.save_for_backward(query, key, value)
        ctx.lengths, ctx.scaling = lengths, scaling
        groups = query.shape[1] // key.shape[1]
        queries, keys, values = _grouped(query, key.shape[1]), key.transpose(0, 1), value.transpose(0, 1)
        hidden = _future(groups, lengths, query)
        output = queries.new_empty(*queries.shape[:2], value.shape[-1])
        for first, start, end in _blocks(lengths):
            rows = slice(start * groups, end * groups)
            weights = _weights(queries[:, rows], keys[:, first:end], hidden, scaling)
            output[:, rows] = weights @ values[:, first:end]
        return _ungrouped(output, len(query))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Returns dQ = s dS K, dK = s dS^T Q and dV = P^T dO, with dS = P * (dP - rowsum(P * dP))."""
        query, key, value = ctx.saved_tensors
        groups = query.shape[1] // key.shape[1]
        queries, keys, values = _grouped(query, key.shape[1]), key.transpose(0, 1), value.transpose(0, 1)
        of_output = _grouped(gradients[0], key.shape[1])
        hidden = _future(groups, ctx.lengths, query)
        # Blocks add to the gradients of the same keys, and 16 bits would round each sum.
        of_keys, of_values = (torch.zeros(each.shape, dtype=torch.float32) for each in (keys, values))
        of_queries = torch.empty_like(queries)
        for first, start, end in _blocks(ctx.lengths):
            rows = slice(start * groups, end * groups)
            weights = _weights(queries[:, rows], keys[:, first:end], hidden, ctx.scaling)
            of_values[:, first:end] += weights.mT @ of_output[:, rows]
            of_weights = of_output[:, rows] @ values[:, first:end].mT
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_queries[:, rows] = of_scores @ keys[:, first:end]
            of_keys[:, first:end] += of_scores.mT @ queries[:, rows]
        of_query = _ungrouped(of_queries.mul_(ctx.scaling), len(query))
        of_key = of_keys.mul_(ctx.scaling).to(key.dtype).transpose(0, 1)
        return of_query, of_key, of_values.to(value.dtype).transpose(0, 1), None, None


def _blocks(lengths: Sequence[int]) -> Iterator[_Block]:
    """Cuts documents into blocks of queries."""
    first = 0
    for length in lengths:
        for start in range(first, first + length, BLOCK_QUERIES):
            yield _Block(first, start, min(start + BLOCK_QUERIES, first + length))
        first += length


def _weights(queries: Tensor, keys: Tensor, hidden: Tensor, scaling: float) -> Tensor:
    """Returns softmax(s Q K^T): [key heads, queries, keys] of queries that stand at the last of the keys."""
    # beta=0: the first argument gives the result its dtype and is not read.
    scores = torch.baddbmm(queries[..., :1], queries, keys.mT, beta=0, alpha=scaling)
    rows = scores.shape[1]
    seen = rows // (hidden.shape[0] // hidden.shape[1])
    scores[..., -seen:] += hidden[:rows, :seen]
    return torch.softmax(scores, -1)


def _future(groups: int, lengths: Sequence[int], like: Tensor) -> Tensor:
    """Returns [queries x groups, queries]: minus infinity where a key comes after its query, else 0."""
    size = min(BLOCK_QUERIES, max(lengths))
    mask = torch.full((size, size), -torch.inf, dtype=like.dtype, device=like.device)
    return mask.triu(1).repeat_interleave(groups, dim=0)


def _grouped(tensor: Tensor, num_keys: int) -> Tensor:
    """Copies [tokens, heads, dim] to [key heads, tokens x groups, dim]: the queries of a key together."""
    apart: Tensor = tensor.unflatten(1, (num_keys, -1))
    return apart.permute(1, 0, 2, 3).flatten(1, 2)


def _ungrouped(tensor: Tensor, num_tokens: int) -> Tensor:
    """Copies [key heads, tokens x groups, dim] back to [tokens, heads, dim]."""
    apart: Tensor = tensor.unflatten(1, (num_tokens, -1))
    return apart.permute(1, 0, 2, 3).flatten(1, 2)
