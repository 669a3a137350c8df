"""What would make a run fit into memory, best first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Literal

from loralab.config.gpu_rules import gpu_faults
from loralab.config.lora_rules import lora_faults
from loralab.config.method_rules import method_faults
from loralab.config.quant_rules import quant_faults
from loralab.config.schema import TrainConfig
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
class Remedies:
    """Which settings of a run may be advised."""

    step: Literal["plain", "step_examples", "batch_tokens", "auto"] = "plain"
    """What says how a step is cut; `auto` has no smaller micro-batch left to advise."""
    step_rows: int | None = None
    """Rows of a step of the first two kinds; None is those of all its micro-batches."""
    checkpointing: bool = True
    """Whether `trainer.gradient_checkpointing=true` is allowed."""
    four_bits: bool = True
    """Whether `quant=nf4` is."""
    smaller_rank: bool = True
    """Whether the method has a rank."""
    offloading: bool = False
    """Whether `trainer.offload_activations=true` is, which needs a GPU."""


def allowed_remedies(config: TrainConfig, is_stored_quantized: bool, device_type: str = "cpu") -> Remedies:
    """Returns what may be advised to a run without another rule refusing it.

    Args:
        config: The run.
        is_stored_quantized: Whether its base comes quantized, which `quant` does not change.
        device_type: cpu or cuda.
    """
    trainer, lora = config.trainer, config.lora
    checkpointing = replace(config, trainer=replace(trainer, gradient_checkpointing=True))
    four_bits = replace(config, quant=replace(config.quant, name="nf4", double_quant=True))
    smaller = replace(config, lora=replace(lora, r=LOWEST_RANK, alpha=None))
    can_recompute = _is_valid(checkpointing)
    allowed = {
        "checkpointing": can_recompute,
        "offloading": can_recompute and device_type == "cuda",
        "four_bits": not is_stored_quantized and _is_valid(four_bits),
        "smaller_rank": _is_valid(smaller),
    }
    if trainer.batch_tokens is not None:
        return Remedies("batch_tokens", **allowed)
    if type(trainer.batch_size) is not int:
        return Remedies("auto", **allowed)
    if trainer.step_examples is not None:
        return Remedies("step_examples", trainer.step_examples, **allowed)
    return Remedies("plain", trainer.batch_size * trainer.accumulation, **allowed)


def _is_valid(config: TrainConfig) -> bool:
    rules = (gpu_faults, quant_faults, lora_faults, method_faults)
    return not any(fault for faults in rules for fault in faults(config))


@dataclass(frozen=True)
class _Change:
    request: MemoryRequest
    remedies: Remedies
    overrides: dict[str, str] = field(default_factory=dict)
    costs: tuple[str, ...] = ()

    def to(self, request: MemoryRequest, overrides: dict[str, str], cost: str) -> "_Change":
        return _Change(request, self.remedies, self.overrides | overrides, (*self.costs, cost))


Ladder = Callable[[_Change], Iterator[_Change]]
"""From a state to milder and stronger uses of one remedy."""


def check_memory(
    request: MemoryRequest, estimate_for: EstimateFor, limit_bytes: int, remedies: Remedies
) -> MemoryEstimate:
    """Estimates a run and refuses it where it does not fit.

    Args:
        request: The run.
        estimate_for: Estimates any request for the same model.
        limit_bytes: What the run may take.
        remedies: What may be advised.

    Raises:
        ConfigError: It needs more; the message names settings that would fit.
    """
    estimate = estimate_for(request)
    if estimate.peak <= limit_bytes:
        return estimate
    found = advise(request, estimate_for, limit_bytes, remedies)[:MOST_SHOWN]
    fitting = [f"  {' '.join(each.overrides)}  ({_gib(each.peak)}; {each.cost})" for each in found]
    largest = sorted(estimate.parts.items(), key=lambda part: -part[1])[:MOST_SHOWN]
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in largest)
    remedy = (
        "These would fit:\n" + "\n".join(fitting)
        if fitting
        else "Nothing short of a smaller model or more memory would fit."
    )
    raise ConfigError(
        f"not enough memory: training needs about {_gib(estimate.peak)} ({parts}) and may take "
        f"{_gib(limit_bytes)}. {remedy}"
    )


def advise(
    request: MemoryRequest, estimate_for: EstimateFor, limit_bytes: int, remedies: Remedies
) -> list[Advice]:
    """Finds settings with which a run would fit: single ones first, then ever more of them together.

    Each is the mildest of its kind that fits. Remedies come in the order of what they cost: smaller
    micro-batches change no result, gradient checkpointing takes time, offloading host memory too, 4 bits
    precision, shorter rows text, and a smaller adapter what it can learn.

    Args:
        request: The run that does not fit.
        estimate_for: Estimates any request for the same model.
        limit_bytes: What the run may take.
        remedies: What may be advised.
    """
    found: list[tuple[int, int, Advice]] = []
    start = _Change(request, remedies)
    for place, ladder in enumerate(LADDERS):
        fitting = (_if_it_fits(change, estimate_for, limit_bytes) for change in ladder(start))
        advice = next(filter(None, fitting), None)
        if advice is not None and not any(_is_more(advice, milder) for _, _, milder in found):
            found.append((place, 1, advice))
    if not any(place < NUM_LOSSLESS for place, _, _ in found):
        found += _together(start, estimate_for, limit_bytes)
    ordered = sorted(found, key=lambda each: each[:2])
    return list(dict.fromkeys(advice for _, _, advice in ordered))


def _is_more(advice: Advice, milder: Advice) -> bool:
    """Whether an advice asks for all that another does, and more."""
    return set(milder.overrides) < set(advice.overrides)


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
    request, kind = change.request, change.remedies.step
    if kind == "auto":
        return
    step = change.remedies.step_rows or request.rows * request.accumulation
    for rows in _halves(request.rows, 1):
        parts, cost = -(-step // rows), "the same steps in smaller parts"
        overrides = {"trainer.batch_size": str(rows), "trainer.accumulation": str(parts)}
        if kind == "batch_tokens":
            # Each group of rows is a micro-batch, so a step takes more of the smaller groups.
            parts, cost = request.accumulation * -(-request.rows // rows), "steps of about as many tokens"
            overrides = {
                "trainer.batch_tokens": str(rows * request.width), "trainer.accumulation": str(parts)
            }  # fmt: skip
        elif kind == "step_examples":
            overrides = {"trainer.batch_size": str(rows)}
        elif step % rows:
            continue
        smaller = resized(replace(request, accumulation=parts), rows, request.width)
        yield change.to(smaller, overrides, cost)


def _checkpointing(change: _Change) -> Iterator[_Change]:
    if change.remedies.checkpointing and int(change.request.checkpointing) != 1:
        yield change.to(
            replace(change.request, checkpointing=True),
            {"trainer.gradient_checkpointing": "true"},
            "about a third more time",
        )


def _offloading(change: _Change) -> Iterator[_Change]:
    request = change.request
    if not change.remedies.offloading or request.offload:
        return
    changed, overrides, cost = replace(request, offload=True), {}, "layer inputs in host memory"
    if not request.checkpointing:
        changed, overrides = replace(changed, checkpointing=True), {"trainer.gradient_checkpointing": "true"}
        cost = f"about a third more time, and {cost}"
    yield change.to(changed, {**overrides, "trainer.offload_activations": "true"}, cost)


def _four_bits(change: _Change) -> Iterator[_Change]:
    quant = change.request.quant
    if change.remedies.four_bits and quant.name in ("none", "int8"):
        stored = replace(quant, name="nf4", double_quant=True)
        yield change.to(replace(change.request, quant=stored), {"quant": "nf4"}, "weights in 4 bits")


def _shorter_rows(change: _Change) -> Iterator[_Change]:
    request = change.request
    for width in _halves(request.width, SHORTEST_LENGTH):
        shorter = resized(request, request.rows, width)
        cost = f"rows above {width} tokens are dropped or cut (data.over_length)"
        yield change.to(shorter, {"data.max_length": str(width)}, cost)


def _smaller_adapter(change: _Change) -> Iterator[_Change]:
    lora = change.request.lora
    if not change.remedies.smaller_rank:
        return
    for rank in _halves(lora.r, LOWEST_RANK):
        if lora.init == "orthogonal" and rank % 2:
            continue  # It divides the rank into two halves.
        smaller = replace(lora, r=rank, alpha=None if lora.alpha is None else lora.alpha * rank / lora.r)
        yield change.to(replace(change.request, lora=smaller), {"lora.r": str(rank)}, "a smaller adapter")


NUM_LOSSLESS = 3
"""So many of the remedies, from the first, change nothing that is learned."""
LADDERS: Sequence[Ladder] = (
    _smaller_micro_batches, _checkpointing, _offloading, _four_bits, _shorter_rows, _smaller_adapter
)  # fmt: skip


def resized(request: MemoryRequest, rows: int, width: int) -> MemoryRequest:
    """Returns a request for a micro-batch of another size that learns the same share of its tokens."""
    share = rows * width / (request.rows * request.width)
    documents, lengths = request.documents, request.lengths
    if documents is not None:
        documents = tuple(_refilled(documents, rows * width, width))
    if lengths is not None:
        # The first are the longest; further rows are taken to be full.
        lengths = (*(min(length, width) for length in lengths[:rows]), *[width] * (rows - len(lengths)))
    return replace(
        request,
        rows=rows,
        width=width,
        num_supervised=max(1, round(request.num_supervised * share)),
        documents=documents,
        lengths=lengths,
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
