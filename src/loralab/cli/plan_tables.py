"""What `loralab plan` prints."""

from collections.abc import Sequence

from rich.console import Console

from loralab.cli.model_plans import ModelPlan
from loralab.cli.planning import CONTEXT_GIB, CardPlan, RunPlan
from loralab.cli.tables import cells, count, make_table, plural, say, show_table
from loralab.config.schema import TrainConfig
from loralab.model.hardware import dtype_name
from loralab.model.memory_map import RANKS
from loralab.model.memory_static import host_bytes
from loralab.runs.memory import GIB
from loralab.training.memory_plan import AUTO, HEADROOM

NO, DASH = "no", "-"
WIDE_GIB = 100
"""From here on a peak is printed without decimals, so that the table of all models fits 80 columns."""


def print_run(console: Console, plan: RunPlan) -> None:
    """Prints a run, the parts of its peak, what fits on each card, and that for other ranks."""
    for line in describe_run(plan):
        say(console, line)
    console.print()
    _print_parts(console, plan)
    _print_cards(console, plan)
    if plan.ranks:
        _print_ranks(console, plan)
    say(console, footnote(plan.device_type, plan.reserved_bytes))


def describe_run(plan: RunPlan) -> list[str]:
    """Says in a few lines which run it is."""
    config, request, estimate = plan.config, plan.request, plan.estimate
    whole = plan.bare.num_parameters
    dtype = dtype_name(request.dtype)
    share = estimate.num_trainable / (whole + estimate.num_trainable)
    rank = f" r={request.lora.r}" if plan.ranks else ""
    step = "" if request.accumulation == 1 else f", {request.accumulation} of them a step"
    return [
        f"{config.model.name}: {count(whole)} parameters; {request.quant.name}; {plan.device_type} {dtype}",
        f"{request.lora.method}{rank}: {estimate.num_trainable:,} trainable parameters ({share:.2%})",
        f"micro-batch: {plural(request.rows, 'row')}{_found(plan)} x {request.width:,} tokens "
        f"(data.max_length), all of them learned{step}; "
        f"gradient checkpointing {_recomputed(request.checkpointing)}; {config.optim.name}",
        *_offloaded(plan),
        *plan.bare.notes,
    ]


def _offloaded(plan: RunPlan) -> list[str]:
    """Says what waits in host memory, where anything does."""
    size = host_bytes(plan.bare.model, plan.request)
    return [f"in host memory: {gib(size)} GiB of layer inputs, page-locked"] if size else []


def _recomputed(every: bool | int) -> str:
    if not every:
        return "off"
    return "on" if every == 1 else f"in one of {every} layers"


def _found(plan: RunPlan) -> str:
    """Says where the rows of `trainer.batch_size=auto` come from."""
    if plan.config.trainer.batch_size != AUTO:
        return ""
    card = next((card for card in plan.cards if card.fits), None)
    return " (trainer.batch_size=auto" + (")" if card is None else f" on {card_name(card.gib)})")


def _print_parts(console: Console, plan: RunPlan) -> None:
    table = make_table("memory at the peak", ">GiB", ">share")
    peak = plan.estimate.peak
    for name, size in plan.estimate.parts.items():
        if size:
            table.add_row(*cells(name, gib(size), f"{size / peak:.0%}"))
    table.add_section()
    table.add_row(*cells("peak", gib(peak), "100%"))
    show_table(console, table)


def _print_cards(console: Console, plan: RunPlan) -> None:
    table = make_table(
        "memory" if plan.device_type == "cpu" else "card",
        "this run fits",
        ">largest micro-batch, tokens",
        ">with checkpointing",
    )
    for card in plan.cards:
        fits = _verdict(card, plan.config.trainer.batch_size == AUTO)
        table.add_row(*cells(card_name(card.gib), fits, *map(tokens, card.largest_tokens)))
    show_table(console, table)
    for card in plan.cards:
        if not card.fits:
            _print_advice(console, card, plan.device_type)


def _verdict(card: CardPlan, says_rows: bool) -> str:
    if not card.fits:
        return f"{NO}, {gib(card.peak - card.usable_bytes)} GiB over"
    filled = card.peak / card.usable_bytes
    rows = f", {plural(card.rows, 'row')}" if says_rows else ""
    return f"{'yes' if filled <= HEADROOM else 'just'}{rows}, {filled:.0%} full"


def _print_advice(console: Console, card: CardPlan, device_type: str) -> None:
    if card.usable_bytes <= 0:
        taker = "the CUDA context" if device_type == "cuda" else "the libraries"
        say(console, f"{card_name(card.gib)}: {taker} alone would fill it, so no setting helps.")
    elif not card.advice:
        say(console, f"{card_name(card.gib)}: nothing short of a smaller model would fit.")
    else:
        say(console, f"{card_name(card.gib)}: these would fit.")
    for each in card.advice:
        say(console, f"  {' '.join(each.overrides)}  ({gib(each.peak)} GiB; {each.cost})")
    console.print()


def _print_ranks(console: Console, plan: RunPlan) -> None:
    say(console, "largest micro-batch with gradient checkpointing, in tokens", "bold")
    table = make_table(">rank", ">trainable", *(f">{card_name(card.gib)}" for card in plan.cards))
    for rank in plan.ranks:
        sizes = map(tokens, rank.largest_tokens)
        table.add_row(*cells(str(rank.rank), count(rank.num_trainable), *sizes))
    show_table(console, table)


def print_models(
    console: Console,
    config: TrainConfig,
    plans: Sequence[ModelPlan],
    cards: Sequence[float],
    reserved_bytes: int,
) -> None:
    """Prints for each model and rank the smallest card and the peak.

    Args:
        console: Where to.
        config: Everything that the runs share.
        plans: The models, by size.
        cards: Sizes in GiB, ascending.
        reserved_bytes: What is taken of a card before the model loads.
    """
    device_type = "cpu" if config.trainer.accelerator == "cpu" else "cuda"
    say(
        console,
        f"smallest card, and peak in GiB: {config.quant.name}, {config.lora.method}, 1 row x "
        f"{config.data.max_length:,} tokens, gradient checkpointing, {config.optim.name}",
        "bold",
    )
    table = make_table("model", ">size", *(f">r={rank}" for rank in RANKS))
    for plan in plans:
        found = [_smallest(plan, rank, cards, reserved_bytes) for rank in RANKS]
        table.add_row(*cells(plan.name, count(plan.num_parameters) if plan.peaks else DASH, *found))
    show_table(console, table)
    for plan in plans:
        if plan.fault:
            say(console, f"{plan.name}: {plan.fault}")
    say(console, footnote(device_type, reserved_bytes))


def _smallest(plan: ModelPlan, rank: int, cards: Sequence[float], reserved_bytes: int) -> str:
    if rank not in plan.peaks:
        return DASH
    card = plan.smallest_card(rank, cards, reserved_bytes)
    peak_gib = plan.peaks[rank] / GIB
    named = f">{cards[-1]:g}" if card is None else f"{card:g}"
    return f"{named} ({peak_gib:.{0 if peak_gib >= WIDE_GIB else 1}f})"


def footnote(device_type: str, reserved_bytes: int) -> str:
    """Says what the numbers of a plan rest on."""
    taken = (
        f"the CUDA context takes {CONTEXT_GIB:g} GiB of a card"
        if device_type == "cuda"
        else f"libraries take {gib(reserved_bytes)} GiB (measured)"
    )
    return f"Estimates: {taken}; a largest micro-batch fills {HEADROOM:.0%} of the rest, in whole rows."


def tokens(number: int) -> str:
    """Writes a budget of tokens; none is `no`."""
    return f"{number:,}" if number else NO


def card_name(size: float) -> str:
    """Writes the size of a card."""
    return f"{size:g} GiB"


def gib(num_bytes: int) -> str:
    """Writes bytes in GiB."""
    return f"{num_bytes / GIB:.2f}"
