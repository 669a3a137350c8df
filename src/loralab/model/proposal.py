"""A rank and alpha for the rows at hand (`lora=auto`), with the reasons."""

import math
from collections.abc import Callable
from dataclasses import dataclass

RANKS = (8, 16, 32, 64, 128, 256)
BITS_PER_TOKEN = 1.0
"""What a supervised token can teach at most, in bits: about the loss that fine-tuning starts from."""
BITS_PER_PARAMETER = 2.0
"""What a trained parameter can hold (Allen-Zhu and Li, arXiv:2404.05405, result 1)."""
SCALE = 2.0
WIDTH_SHARE = 4
"""No rank above a quarter of the model's width: beyond it a low-rank update saves little."""


@dataclass(frozen=True)
class Proposal:
    """What `lora=auto` chose."""

    r: int
    """Rank."""
    alpha: float
    """What keeps the scale of the update at 2, and with it the learning rate, whatever the rank."""
    reasons: list[str]
    """Why, a line each."""


@dataclass(frozen=True)
class AdaptedLayers:
    """What the layers to adapt allow."""

    params_per_rank: int
    """Adapter parameters of each rank: inputs plus outputs of all of them."""
    width: int
    """Hidden size of the model."""
    narrowest: int
    """The smallest side of any; no layer takes a higher rank."""


def scaled_alpha(rank: int, rslora: bool) -> float:
    """Returns the alpha that scales the update by 2.

    The scale is alpha / r (arXiv:2106.09685, section 4.1), or alpha / sqrt(r) with rsLoRA (arXiv:2312.03732).
    """
    return SCALE * (math.sqrt(rank) if rslora else rank)


def propose_rank(
    num_rows: int, supervised_tokens: int, layers: AdaptedLayers, rslora: bool, fits: Callable[[int], bool]
) -> Proposal:
    """Chooses the smallest usual rank that can hold what the rows teach, and that fits in memory.

    Args:
        num_rows: Training rows.
        supervised_tokens: Tokens of theirs that are learned; repeats over epochs teach nothing new.
        layers: What the layers to adapt allow.
        rslora: Whether the update is scaled by alpha / sqrt(r).
        fits: Whether a run of a rank fits in memory; asked of ranks that every layer takes.
    """
    params_per_rank, width = layers.params_per_rank, layers.width
    needed = supervised_tokens * BITS_PER_TOKEN / BITS_PER_PARAMETER
    wanted = next((rank for rank in RANKS if rank * params_per_rank >= needed), RANKS[-1])
    reasons = [
        f"{num_rows:,} rows hold {supervised_tokens:,} supervised tokens: at {BITS_PER_TOKEN:g} bit a token "
        f"and {BITS_PER_PARAMETER:g} bits a parameter, {needed:,.0f} parameters can hold them",
        _needed_ranks(params_per_rank, needed, wanted),
    ]
    if wanted == RANKS[-1] and wanted * params_per_rank < needed:
        reasons.append(f"more than {wanted} is not proposed: with so many tokens, consider full fine-tuning")
    limit = max(RANKS[0], width // WIDTH_SHARE)
    if wanted > limit:
        wanted = max(rank for rank in RANKS if rank <= limit)
        reasons.append(f"the model is {width:,} wide, and a quarter of it is enough: rank {wanted}")
    ranks = [rank for rank in RANKS if rank <= layers.narrowest] or [layers.narrowest]
    if wanted > ranks[-1]:
        wanted = ranks[-1]
        reasons.append(f"the narrowest layer to adapt has a side of {layers.narrowest:,}: rank {wanted}")
    chosen = next((rank for rank in reversed(ranks) if rank <= wanted and fits(rank)), ranks[0])
    if chosen < wanted:
        reasons.append(f"rank {wanted} does not fit in memory: rank {chosen}")
    alpha, formula = scaled_alpha(chosen, rslora), "2 sqrt(r)" if rslora else "2 r"
    reasons.append(f"alpha = {formula} = {alpha:g} keeps the scale of the update at 2")
    return Proposal(chosen, alpha, reasons)


def _needed_ranks(params_per_rank: int, needed: float, wanted: int) -> str:
    """Says in words how many ranks hold so many parameters, and the usual rank above."""
    has = f"a rank has {params_per_rank:,} parameters here"
    if needed <= params_per_rank:
        return f"{has}, so a single one would do; the lowest usual rank is {wanted}"
    return f"{has}, so {needed / params_per_rank:.1f} ranks are needed; the next usual one is {wanted}"
