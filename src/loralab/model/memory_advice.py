"""What would make a run fit into memory, best first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle

from loralab.errors import ConfigError
from loralab.model.memory_request import MemoryEstimate, MemoryRequest

GIB = 2**30
SHORTEST_LENGTH = 128
"""`data.max_length` is not advised below this."""
LOWEST_RANK = 4
MOST_SHOWN = 3

EstimateFor = Callable[[MemoryRequest], MemoryEstimate]


@dataclass(frozen=True)
class Advice:
    """Settings with which a run would fit."""

    overrides: tuple[str, ...]
    """What to add to the command line."""
    peak: int
    """Estimated bytes with them."""
    cost: str
    """What they cost."""


@dataclass(frozen=True)
class _Change:
    request: MemoryRequest
    overrides: dict[str, str] = field(default_factory=dict)
    costs: tuple[str, ...] = ()

    def to(self, request: MemoryRequest, overrides: dict[str, str], cost: str) -> "_Change":
        return _Change(request, self.overrides | overrides, (*self.costs, cost))


Ladder = Callable[[_Change], Iterator[_Change]]
"""From a state to milder and stronger uses of one remedy."""


def check_memory(request: MemoryRequest, estimate_for: EstimateFor, limit_bytes: int) -> MemoryEstimate:
    """Estimates a run and refuses it where it does not fit.

    Args:
        request: The run.
        estimate_for: Estimates any request for the same model.
        limit_bytes: What the run may take.

    Raises:
        ConfigError: It needs more; the message names settings that would fit.
    """
    estimate = estimate_for(request)
    if estimate.peak <= limit_bytes:
        return estimate
    found = advise(request, estimate_for, limit_bytes)[:MOST_SHOWN]
    fitting = [f"  {' '.join(each.overrides)}  ({_gib(each.peak)}; {each.cost})" for each in found]
    largest = sorted(estimate.parts.items(), key=lambda part: -part[1])[:MOST_SHOWN]
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in largest)
    remedy = (
        "These would fit:\n" + "\n".join(fitting)
        if fitting
        else "Nothing short of a smaller model would fit."
    )
    raise ConfigError(
        f"not enough memory: training needs about {_gib(estimate.peak)} ({parts}) and may take "
        f"{_gib(limit_bytes)}. {remedy}"
    )


def advise(request: MemoryRequest, estimate_for: EstimateFor, limit_bytes: int) -> list[Advice]:
    """Finds settings with which a run would fit: single ones first, then ever more of them together.

    Each is the mildest of its kind that fits. Remedies come in the order of what they cost: smaller
    micro-batches change no result, gradient checkpointing takes time, 4 bits precision, shorter rows text,
    and a smaller adapter what it can learn.

    Args:
        request: The run that does not fit.
        estimate_for: Estimates any request for the same model.
        limit_bytes: What the run may take.
    """
    found: list[tuple[int, int, Advice]] = []
    start = _Change(request)
    for place, ladder in enumerate(LADDERS):
        fitting = (_if_it_fits(change, estimate_for, limit_bytes) for change in ladder(start))
        if (advice := next(filter(None, fitting), None)) is not None:
            found.append((place, 1, advice))
    if not any(place < NUM_LOSSLESS for place, _, _ in found):
        found += _together(start, estimate_for, limit_bytes)
    ordered = sorted(found, key=lambda each: each[:2])
    return list(dict.fromkeys(advice for _, _, advice in ordered))


def _together(start: _Change, estimate_for: EstimateFor, limit_bytes: int) -> list[tuple[int, int, Advice]]:
    """Uses remedy after remedy to the full until the run fits."""
    together = start
    for place, ladder in enumerate(LADDERS):
        for change in ladder(together):
            together = change
            advice = _if_it_fits(change, estimate_for, limit_bytes) if place else None
            if advice is not None:
                return [(place, len(advice.overrides), advice)]
    return []


def _if_it_fits(change: _Change, estimate_for: EstimateFor, limit_bytes: int) -> Advice | None:
    peak = estimate_for(change.request).peak
    if peak > limit_bytes:
        return None
    overrides = tuple(f"{key}={value}" for key, value in change.overrides.items())
    return Advice(overrides, peak, "; ".join(dict.fromkeys(change.costs)))


def _smaller_micro_batches(change: _Change) -> Iterator[_Change]:
    request = change.request
    step = request.rows * request.accumulation
    for rows in _halves(request.rows, 1):
        if step % rows == 0:
            overrides = {"trainer.batch_size": str(rows), "trainer.accumulation": str(step // rows)}
            smaller = resized(replace(request, accumulation=step // rows), rows, request.width)
            yield change.to(smaller, overrides, "the same steps in smaller parts")


def _checkpointing(change: _Change) -> Iterator[_Change]:
    if not change.request.checkpointing:
        yield change.to(
            replace(change.request, checkpointing=True),
            {"trainer.gradient_checkpointing": "true"},
            "about a third more time",
        )


def _four_bits(change: _Change) -> Iterator[_Change]:
    quant = change.request.quant
    if quant.name in ("none", "int8"):
        stored = replace(quant, name="nf4", double_quant=True)
        yield change.to(replace(change.request, quant=stored), {"quant": "nf4"}, "weights in 4 bits")


def _shorter_rows(change: _Change) -> Iterator[_Change]:
    request = change.request
    for width in _halves(request.width, SHORTEST_LENGTH):
        shorter = resized(request, request.rows, width)
        yield change.to(shorter, {"data.max_length": str(width)}, f"text after {width} tokens is lost")


def _smaller_adapter(change: _Change) -> Iterator[_Change]:
    lora = change.request.lora
    for rank in _halves(lora.r, LOWEST_RANK):
        smaller = replace(lora, r=rank, alpha=None if lora.alpha is None else lora.alpha * rank / lora.r)
        yield change.to(replace(change.request, lora=smaller), {"lora.r": str(rank)}, "a smaller adapter")


NUM_LOSSLESS = 2
"""So many of the remedies, from the first, change nothing that is learned."""
LADDERS: Sequence[Ladder] = (
    _smaller_micro_batches, _checkpointing, _four_bits, _shorter_rows, _smaller_adapter
)  # fmt: skip


def resized(request: MemoryRequest, rows: int, width: int) -> MemoryRequest:
    """Returns a request for a micro-batch of another size that learns the same share of its tokens."""
    share = rows * width / (request.rows * request.width)
    documents = request.documents
    if documents is not None:
        documents = tuple(_refilled(documents, rows * width, width))
    return replace(
        request,
        rows=rows,
        width=width,
        num_supervised=max(1, round(request.num_supervised * share)),
        documents=documents,
    )


def _refilled(documents: Sequence[int], tokens: int, width: int) -> Iterator[int]:
    """Takes documents, none longer than a row, until the rows are full; repeats them if they are few."""
    for length in cycle(documents):
        if tokens == 0:
            return
        taken = min(length, width, tokens)
        yield taken
        tokens -= taken


def _halves(number: int, least: int) -> Iterator[int]:
    while number // 2 >= least:
        number //= 2
        yield number


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB"
