import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from loralab.model import block_attention
from loralab.model.block_attention import attend_in_blocks

DIM, VALUE_DIM = 8, 6


def attend_slowly(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scaling: float
) -> Tensor:
    """Token by token and head by head, from the definition."""
    heads, groups = query.shape[1], query.shape[1] // key.shape[1]
    rows, begin = [], 0
    for length in lengths:
        for token in range(begin, begin + length):
            of_heads = []
            for head in range(heads):
                keys, values = (
                    key[begin : token + 1, head // groups],
                    value[begin : token + 1, head // groups],
                )
                weights = torch.exp(scaling * (keys @ query[token, head]))
                of_heads.append((weights / weights.sum()) @ values)
            rows.append(torch.stack(of_heads))
        begin += length
    return torch.stack(rows)


def inputs(lengths: Sequence[int], heads: int, key_heads: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = ((heads, DIM), (key_heads, DIM), (key_heads, VALUE_DIM))
    return [torch.randn(sum(lengths), *shape).to(dtype).requires_grad_() for shape in shapes]


def outputs_and_gradients(output: Tensor, given: list[Tensor]) -> list[Tensor]:
    factors = torch.arange(1.0, output.numel() + 1).view_as(output).cos().to(output.dtype)
    return [output, *torch.autograd.grad(output, given, factors)]


@pytest.fixture(params=[1, 3, 32], ids="whole steps of {}".format)
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 4 queries: documents end inside a block, at its end, and after several."""
    monkeypatch.setattr(block_attention, "BLOCK_QUERIES", 4)
    monkeypatch.setattr(block_attention, "STEP_TOKENS", request.param)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("lengths", [(1,), (4,), (5,), (3, 9, 1), (13, 4)], ids=str)
@pytest.mark.parametrize(("heads", "key_heads"), [(2, 2), (6, 2), (3, 1)])
def test_every_token_attends_to_those_before_it_in_its_document(
    lengths: tuple[int, ...], heads: int, key_heads: int
) -> None:
    given = inputs(lengths, heads, key_heads, torch.float64)

    found = outputs_and_gradients(attend_in_blocks(*given, lengths, 0.3), given)

    expected = outputs_and_gradients(attend_slowly(*given, lengths, 0.3), given)
    for ours, theirs in zip(found, expected, strict=True):
        # Gradients of keys and values are added up in float32.
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("rests", [(4, 2), (3, 9, 1), (13, 0, 4)], ids=str)
@pytest.mark.parametrize("shared", [1, 3, 4, 6])
def test_a_shared_beginning_gives_what_copies_of_it_give(shared: int, rests: tuple[int, ...]) -> None:
    """The gradients of the copies add up in the one that stands for all."""
    lengths = [shared, *(rest for rest in rests if rest)]
    given = inputs(lengths, 6, 2, torch.float64)
    begins = [shared + sum(rests[:number]) for number in range(len(rests))]
    places = [
        place
        for begin, rest in zip(begins, rests, strict=True)
        for place in (*range(shared), *range(begin, begin + rest))
    ]
    first = [places.index(place) for place in range(sum(lengths))]

    found = outputs_and_gradients(attend_in_blocks(*given, lengths, 0.3, is_shared=True), given)

    copied = [tensor[places] for tensor in given]
    whole = attend_slowly(*copied, [shared + rest for rest in rests], 0.3)
    expected = outputs_and_gradients(whole[first], given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_usual_scale_is_that_of_the_width_of_a_head() -> None:
    given = inputs((7,), 2, 2, torch.float64)
    expected = attend_in_blocks(*given, (7,), 1 / math.sqrt(DIM))
    torch.testing.assert_close(attend_in_blocks(*given, (7,)), expected)


def test_bfloat16_rounds_no_more_than_it_must() -> None:
    """Scores, weights and results are rounded once each: 2**-9 of their size, over some hundred tokens."""
    lengths = (150, 40)
    given = inputs(lengths, 4, 2, torch.bfloat16)
    exact = [tensor.detach().double().requires_grad_() for tensor in given]

    found = outputs_and_gradients(attend_in_blocks(*given, lengths), given)

    expected = outputs_and_gradients(attend_in_blocks(*exact, lengths), exact)
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours.double() - theirs).detach().norm() / theirs.detach().norm()) < 8e-3


def test_large_scores_round_to_one_part_in_a_few_hundred() -> None:
    """A score of 30 is rounded by up to 1/16, which a weight follows by 6%; over a row it averages out."""
    lengths = (150,)
    given = [3 * tensor.detach() for tensor in inputs(lengths, 2, 2, torch.bfloat16)]
    exact = [tensor.double() for tensor in given]
    assert float((exact[0].transpose(0, 1) @ exact[1].permute(1, 2, 0)).max()) * DIM**-0.5 > 20
    ours, theirs = attend_in_blocks(*given, lengths), attend_in_blocks(*exact, lengths)
    assert float((ours.double() - theirs).norm() / theirs.norm()) < 0.02


def test_nothing_is_kept_but_the_inputs() -> None:
    kept: list[Tensor] = []
    given = inputs((300,), 4, 2, torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda x: x):
        attend_in_blocks(*given, (300,))
    assert {id(tensor) for tensor in kept} == {id(tensor) for tensor in given}


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """Gathers the rows and keys of all products of queries and keys."""
    found, plain = set(), block_attention._weights

    def watched(queries: Tensor, keys: Tensor, *others: Any) -> Tensor:
        found.add((queries.shape[1], keys.shape[1]))
        return plain(queries, keys, *others)

    monkeypatch.setattr(block_attention, "_weights", watched)
    return found


def test_documents_of_any_length_need_few_shapes(shapes: set[tuple[int, int]]) -> None:
    """oneDNN keeps memory for each: those of 1 to 64 tokens are computed as 32 or 64."""
    for length in range(1, 65):
        attend_in_blocks(*inputs((length,), 2, 1, torch.float32), (length,))
    assert shapes == {(2 * 32, 32), (2 * 64, 64)}


def test_keys_are_filled_up_where_documents_share_their_beginning(shapes: set[tuple[int, int]]) -> None:
    """Five tokens that all see, and after them blocks of 128 and of 32 tokens: 5 + 128 and 5 + 160 keys."""
    lengths = (5, 160)
    attend_in_blocks(*inputs(lengths, 2, 1, torch.float32), lengths, is_shared=True)
    assert shapes == {(2 * 32, 32), (2 * 128, 160), (2 * 32, 192)}
