"""`lora=auto` chooses a rank from what the rows can teach, the model's width and memory."""

from collections.abc import Callable

import pytest

from loralab.model.proposal import AdaptedLayers, Proposal, propose_rank


def propose(
    num_rows: int, tokens: int, params_per_rank: int, width: int, fits: Callable[[int], bool]
) -> Proposal:
    return propose_rank(num_rows, tokens, AdaptedLayers(params_per_rank, width, width), False, fits)


def always(rank: int) -> bool:
    return True


def test_few_rows_get_the_smallest_rank() -> None:
    # 1,000 tokens at 1 bit need 500 parameters of 2 bits; one rank has 10,000.
    proposal = propose(100, 1_000, 10_000, 576, always)
    assert (proposal.r, proposal.alpha) == (8, 16.0)
    assert proposal.reasons[1] == (
        "a rank has 10,000 parameters here, so a single one would do; the lowest usual rank is 8"
    )


def test_the_rank_holds_what_the_tokens_teach() -> None:
    # 5,000,000 tokens need 2,500,000 parameters: 25 ranks of 100,000, so 32.
    proposal = propose(10_000, 5_000_000, 100_000, 4096, always)
    assert (proposal.r, proposal.alpha) == (32, 64.0)
    assert "so 25.0 ranks are needed" in proposal.reasons[1]


def test_no_rank_above_a_quarter_of_the_width() -> None:
    # 200 ranks are needed, 256 is the next; a quarter of 576 is 144, so 128.
    proposal = propose(10_000, 40_000_000, 100_000, 576, always)
    assert proposal.r == 128
    assert any("576 wide" in reason for reason in proposal.reasons)


def test_memory_lowers_the_rank() -> None:
    proposal = propose(10_000, 40_000_000, 100_000, 8192, lambda rank: rank <= 64)
    assert proposal.r == 64
    assert "rank 256 does not fit in memory: rank 64" in proposal.reasons


def test_more_tokens_than_any_rank_holds_are_said() -> None:
    proposal = propose(10, 10**12, 1_000, 8192, always)
    assert proposal.r == 256
    assert any("full fine-tuning" in reason for reason in proposal.reasons)


@pytest.mark.parametrize(("narrowest", "expected"), [(100, 64), (64, 64), (5, 5)])
def test_no_layer_is_given_a_rank_above_its_smaller_side(narrowest: int, expected: int) -> None:
    asked = []

    def fits(rank: int) -> bool:
        asked.append(rank)
        return True

    proposal = propose_rank(10_000, 40_000_000, AdaptedLayers(100_000, 8192, narrowest), False, fits)
    assert proposal.r == expected
    assert max(asked) <= narrowest
    assert f"the narrowest layer to adapt has a side of {narrowest}: rank {expected}" in proposal.reasons


def test_rslora_keeps_the_scale_by_the_root_of_the_rank() -> None:
    # 50 ranks are needed, 64 is the next; 2 sqrt(64) = 16 and alpha / sqrt(64) = 2.
    proposal = propose_rank(10_000, 10_000_000, AdaptedLayers(100_000, 4096, 1024), True, always)
    assert (proposal.r, proposal.alpha) == (64, 16.0)
    assert proposal.reasons[-1] == "alpha = 2 sqrt(r) = 16 keeps the scale of the update at 2"
