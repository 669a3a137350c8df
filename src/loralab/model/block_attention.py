"""Causal attention inside documents as large matrix products, for CPUs.

PyTorch's own kernel for CPUs walks through its backward pass in products of single heads and small tiles.
Here a block of queries, of all heads that share a key at once, meets every key that it may see: few products,
each large, and none for pairs above the blocks of the diagonal. As in FlashAttention (arXiv:2205.14135,
algorithm 4) weights are not kept for the backward pass but computed again, a block at a time.

oneDNN keeps two thirds of a MiB for every shape of a product that it has met, so documents are computed up to
a whole number of `STEP_TOKENS`. Of what stands there they see nothing, it gets no gradient from them, and its
own results are written later. Keys are filled up to such a number too: PyTorch's softmax in bfloat16
takes up to two and a half times as long where its rows do not end with a whole register.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_QUERIES = 128
"""Tokens of a block: large enough for the products, small enough for its weights to stay in the cache."""
STEP_TOKENS = 32
"""Documents of 1 to 512 tokens have 16 shapes of blocks instead of 512."""


class _Document(NamedTuple):
    """Tokens [start, end) of a document; `ahead` more stand at the beginning of all rows, which they see."""

    ahead: int
    start: int
    end: int

    @property
    def stop(self) -> int:
        """Where what is computed of it ends."""
        return self.start - (self.start - self.end) // STEP_TOKENS * STEP_TOKENS

    @property
    def filler(self) -> int:
        """Keys that each block has beyond its last token's: later ones, hidden, and zeros at the end."""
        return -self.ahead % STEP_TOKENS


def attend_in_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    scaling: float | None = None,
    is_shared: bool = False,
) -> Tensor:
    """Lets every token attend to those before it in its document, and to itself.

    Args:
        query: [tokens, heads, dim], documents laid end to end.
        key: [tokens, key heads, dim]; query heads share one in groups (arXiv:2305.13245).
        value: [tokens, key heads, value dim]
        lengths: Tokens of each document.
        scaling: Factor of the products of queries and keys; None is 1 / sqrt(dim).
        is_shared: Whether the first document is the beginning of all others, which go on from there.

    Returns:
        [tokens, heads, value dim]
    """
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    output: Tensor = _BlockAttention.apply(query, key, value, _documents(lengths, is_shared), factor)  # type: ignore[no-untyped-call]
    return output


class _BlockAttention(torch.autograd.Function):
    """O = P V with P = softmax(s Q K^T), and its gradients (arXiv:2205.14135, appendix B.2)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, documents: tuple[_Document, ...], scaling: float
    ) -> Tensor:
        """Returns [tokens, heads, value dim]; keeps its inputs alone."""
        ctx.save_for_backward(query, key, value)
        ctx.documents, ctx.scaling = documents, scaling
        groups = query.shape[1] // key.shape[1]
        room = _room(documents)
        queries, keys, values = _grouped(query, key.shape[1], room), _laid(key, room), _laid(value, room)
        hidden = _future(groups, documents, query)
        output = queries.new_empty(*queries.shape[:2], value.shape[-1])
        for document in documents:
            seen, carried = _seen(keys, document), _seen(values, document)
            for block, first, last in _blocks(document):
                rows = slice(block.start * groups, block.stop * groups)
                weights = _weights(queries[:, rows], seen[:, :last], first, hidden, scaling)
                # `@` would expand and reshape both before the same product.
                output[:, rows] = torch.bmm(weights, carried[:, :last])
        return _ungrouped(output, room)[: len(query)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Returns dQ = s dS K, dK = s dS^T Q and dV = P^T dO, with dS = P * (dP - rowsum(P * dP))."""
        query, key, value = ctx.saved_tensors
        tokens, groups, room = len(query), query.shape[1] // key.shape[1], _room(ctx.documents)
        queries, keys, values = _grouped(query, key.shape[1], room), _laid(key, room), _laid(value, room)
        of_output = _grouped(gradients[0], key.shape[1], room)
        hidden = _future(groups, ctx.documents, query)
        # Blocks add to the gradients of the same keys, and 16 bits would round each sum.
        of_keys, of_values = (torch.zeros(each.shape, dtype=torch.float32) for each in (keys, values))
        of_queries = torch.empty_like(queries)
        for document in ctx.documents:
            seen, carried = _seen(keys, document), _seen(values, document)
            for block, first, last in _blocks(document):
                rows = slice(block.start * groups, block.stop * groups)
                weights = _weights(queries[:, rows], seen[:, :last], first, hidden, ctx.scaling)
                of_block = _own(of_output[:, rows], (document.end - block.start) * groups)
                _add(of_values, document, torch.bmm(weights.mT, of_block))
                of_weights = torch.bmm(of_block, carried[:, :last].mT)
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                of_queries[:, rows] = torch.bmm(of_scores, seen[:, :last])
                _add(of_keys, document, torch.bmm(of_scores.mT, queries[:, rows]))
        of_query = _ungrouped(of_queries.mul_(ctx.scaling), room)[:tokens]
        of_key = of_keys.mul_(ctx.scaling).to(key.dtype).transpose(0, 1)[:tokens]
        return of_query, of_key, of_values.to(value.dtype).transpose(0, 1)[:tokens], None, None


def _documents(lengths: Sequence[int], is_shared: bool) -> tuple[_Document, ...]:
    """Says where each document lies, and what it sees before itself."""
    bounds = pairwise(accumulate(lengths, initial=0))
    return tuple(_Document(lengths[0] if is_shared and start else 0, start, end) for start, end in bounds)


def _room(documents: Sequence[_Document]) -> int:
    """Returns the tokens that all documents need, those after them included."""
    return max(document.stop for document in documents)


def _blocks(document: _Document) -> Iterator[tuple[slice, int, int]]:
    """Yields a document's queries in blocks, each with its first place among its keys and their number."""
    offset = document.start - document.ahead
    for start in range(document.start, document.stop, BLOCK_QUERIES):
        end = min(start + BLOCK_QUERIES, document.stop)
        yield slice(start, end), start - offset, end - offset + document.filler


def _own(of_block: Tensor, num: int) -> Tensor:
    """Returns the gradients of a block, [key heads, rows, dim], none of those after its first `num` rows."""
    missing = of_block.shape[1] - max(0, num)
    return F.pad(of_block[:, : max(0, num)], (0, 0, 0, missing)) if missing > 0 else of_block


def _seen(tensor: Tensor, document: _Document) -> Tensor:
    """Returns [key heads, tokens, dim] of what a document's last token sees, and what is after it."""
    own = tensor[:, document.start : document.stop]
    if not document.ahead:
        return own
    filler = tensor.new_zeros(()).expand(len(tensor), document.filler, tensor.shape[-1])
    return torch.cat([tensor[:, : document.ahead], own, filler], dim=1)


def _add(sums: Tensor, document: _Document, parts: Tensor) -> None:
    """Adds what is for the first of the tokens that a document sees, [key heads, seen, dim]."""
    ahead, start = document.ahead, document.start
    if ahead:
        sums[:, :ahead] += parts[:, :ahead]
    num = min(parts.shape[1] - ahead, document.stop - start)
    sums[:, start : start + num] += parts[:, ahead : ahead + num]


def _weights(queries: Tensor, keys: Tensor, first: int, hidden: Tensor, scaling: float) -> Tensor:
    """Returns softmax(s Q K^T): [key heads, queries, keys], where queries stand at keys from `first` on."""
    # beta=0: the first argument gives the result its dtype and is not read.
    scores = torch.baddbmm(queries[..., :1], queries, keys.mT, beta=0, alpha=scaling)
    scores[..., first:] += hidden[: queries.shape[1], : keys.shape[1] - first]
    return torch.softmax(scores, -1)


def _future(groups: int, documents: Sequence[_Document], like: Tensor) -> Tensor:
    """Returns [queries x groups, keys]: minus infinity where a key comes after its query, else 0."""
    size = min(BLOCK_QUERIES, max(document.stop - document.start for document in documents))
    mask = torch.full((size, size + STEP_TOKENS), -torch.inf, dtype=like.dtype, device=like.device)
    return mask.triu(1).repeat_interleave(groups, dim=0)


def _laid(tensor: Tensor, room: int) -> Tensor:
    """Returns [tokens, heads, dim] as [heads, room, dim], zeros at the end."""
    missing = room - len(tensor)
    return (F.pad(tensor, (0, 0, 0, 0, 0, missing)) if missing > 0 else tensor).transpose(0, 1)


def _grouped(tensor: Tensor, num_keys: int, room: int) -> Tensor:
    """Copies [tokens, heads, dim] to [key heads, room x groups, dim]: the queries of a key together."""
    apart: Tensor = tensor.unflatten(1, (num_keys, -1)).transpose(0, 1)
    laid = tensor.new_empty(num_keys, room, *apart.shape[2:])
    laid[:, : len(tensor)] = apart
    laid[:, len(tensor) :] = 0
    return laid.flatten(1, 2)


def _ungrouped(tensor: Tensor, num_tokens: int) -> Tensor:
    """Copies [key heads, tokens x groups, dim] back to [tokens, heads, dim]."""
    apart: Tensor = tensor.unflatten(1, (num_tokens, -1))
    return apart.permute(1, 0, 2, 3).flatten(1, 2)
