"""The memory of many sizes of a run from the traces of a few.

At every stage of a step memory is the highest of straight lines, in the rows of the micro-batch and in the
rank. So between two traces it is at most on the line between them. Beyond the largest traced micro-batch it
is on the line through the last two: all that grows with the rows outweighs by then what does not.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from loralab.config.method_rules import VIRTUAL_TOKENS
from loralab.errors import ConfigError
from loralab.losses.sft import chunk_positions
from loralab.model.lora import check_adapter, trainable
from loralab.model.memory import build_shadow, estimate_memory, trace_step
from loralab.model.memory_advice import resized
from loralab.model.memory_request import GRADIENTS, PARTS, MemoryEstimate, MemoryRequest
from loralab.model.memory_static import loaded_bytes, static_parts, with_loading
from loralab.optim.state_size import FLOAT32_BYTES

RANKS = (8, 16, 32, 64, 128)
"""Ranks to compare."""
RANKED_METHODS = ("lora", "adalora", "vera")
"""Methods of the group `lora` that have a rank."""
TRACED_TOKENS = 16_384
"""Tokens of the largest micro-batch that is traced: more than the states between layers are wide."""


@dataclass(frozen=True)
class Trace:
    """The bytes of one size of a run."""

    static: Counter[str]
    """By part, what is there all the time."""
    stages: dict[str, Counter[str]]
    """By stage of a step, what comes on top at its highest moment, by part."""
    num_trainable: int
    """Parameters that train."""
    loaded: int = 0
    """What a base that is split later takes while it loads (`loaded_bytes`)."""

    def estimate(self, accumulates: bool) -> MemoryEstimate:
        """Puts the parts of the highest stage together.

        Args:
            accumulates: Whether a step has more than one micro-batch, so that gradients stay between them.
        """
        grads = FLOAT32_BYTES * self.num_trainable
        stages = [*self.stages.values(), Counter({GRADIENTS: grads})]
        if accumulates:
            stages = [Counter({**parts, GRADIENTS: grads}) for parts in stages]
        highest = max(stages, key=Counter.total)
        parts = {part: self.static[part] + highest[part] for part in PARTS}
        return MemoryEstimate(with_loading(parts, self.loaded), self.num_trainable)


def between(first: Trace, second: Trace, share: float) -> Trace:
    """Returns what lies on the line through two traces.

    Args:
        first: Where `share` is 0.
        second: Where `share` is 1; above 1 the line goes on.
        share: How far from the first to the second.
    """

    def mix(one: Counter[str], other: Counter[str]) -> Counter[str]:
        names = {*one, *other}
        return Counter({name: round(one[name] + share * (other[name] - one[name])) for name in names})

    stages = {name: mix(parts, second.stages[name]) for name, parts in first.stages.items()}
    num_trainable = first.num_trainable + share * (second.num_trainable - first.num_trainable)
    loaded = first.loaded + share * (second.loaded - first.loaded)
    return Trace(mix(first.static, second.static), stages, round(num_trainable), round(loaded))


def trace_stages(model: PreTrainedModel, request: MemoryRequest, device_type: str) -> Trace:
    """Traces a request stage by stage; arguments are those of `estimate_memory`."""
    adapted = build_shadow(model, request, device_type)
    num_trainable = sum(parameter.numel() for parameter in trainable(adapted).values())
    static, loaded = Counter(static_parts(adapted, request)), loaded_bytes(adapted, request)
    return Trace(static, trace_step(adapted, request, device_type), num_trainable, loaded)


def trace_whole(model: PreTrainedModel, request: MemoryRequest, device_type: str) -> Trace:
    """Estimates a request that is put together from others, as a single stage.

    Between two of these the line is further above the peak, where another stage takes over.
    """
    estimate = estimate_memory(model, replace(request, accumulation=1), device_type)
    return Trace(Counter(), {"step": Counter(estimate.parts)}, estimate.num_trainable)


def has_no_stages(request: MemoryRequest) -> bool:
    """Whether the memory model puts a request together from others instead of tracing it."""
    return request.lora.method in VIRTUAL_TOKENS or (request.lora.dora and request.quant.name != "none")


class MemoryMap:
    """Estimates a run, and what it would take with other micro-batches, ranks and checkpointing."""

    def __init__(self, model: PreTrainedModel, request: MemoryRequest, device_type: str) -> None:
        """Takes a run; traces are made when they are first needed.

        Args:
            model: The base without weights.
            request: The run.
            device_type: cpu or cuda.
        """
        self.model, self.request, self.device_type = model, request, device_type
        self._traces: dict[str, Trace] = {}
        # Up to a chunk of logits they grow with the rows, from there on they do not.
        vocab_size = int(model.config.get_text_config().vocab_size)
        chunk = max(1, chunk_positions(vocab_size, device_type) // request.width)
        self._row_nodes = sorted({1, chunk, request.rows, max(2, TRACED_TOKENS // request.width)})
        self.ranks = self._possible_ranks()

    def estimate(self, request: MemoryRequest) -> MemoryEstimate:
        """Estimates a request as `estimate_memory` does, and remembers it."""
        return self._trace(request).estimate(request.accumulation > 1)

    def nearly(self, request: MemoryRequest) -> MemoryEstimate:
        """Estimates a request from the traces of others where it differs in nothing but what is mapped."""
        own, lora = self.request, replace(request.lora, r=self.request.lora.r, alpha=self.request.lora.alpha)
        mapped = {
            "rows", "num_supervised", "documents", "lengths", "checkpointing", "accumulation", "lora"
        }  # fmt: skip
        same = all(getattr(request, name) == getattr(own, name) for name in vars(own).keys() - mapped)
        ranks = sorted({own.lora.r, *self.ranks})
        if not same or lora != own.lora or not ranks[0] <= request.lora.r <= ranks[-1]:
            return self.estimate(request)
        trace = self.at(request.lora.r, request.rows, request.checkpointing)
        return trace.estimate(request.accumulation > 1)

    def at(self, rank: int, rows: int, checkpointing: bool | int) -> Trace:
        """Returns the bytes of a size: traced at the corners of the map, else on the lines between them."""

        def by_rows(rank: int) -> Trace:
            return _on_line(self._row_nodes, rows, lambda node: self._corner(rank, node, checkpointing))

        return _on_line(self._rank_nodes(rank, checkpointing), rank, by_rows)

    def largest_rows(self, limit_bytes: float, rank: int, checkpointing: bool | int) -> int:
        """Finds the most rows of a micro-batch that stay within a limit; 0 where not even one does.

        Micro-batches smaller than the run's step make it accumulate gradients.
        """
        step = self.request.rows * self.request.accumulation

        def fits(rows: int) -> bool:
            return self.at(rank, rows, checkpointing).estimate(rows < step).peak <= limit_bytes

        low, high = (step, 2 * step) if fits(step) else (0, step)
        while low and fits(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _rank_nodes(self, rank: int, checkpointing: bool | int) -> list[int]:
        """Chooses the ranks to trace: the run's own by itself, all with checkpointing between two ends."""
        own, ends = self.request.lora.r, {*self.ranks[:1], *self.ranks[-1:]}
        if not ends or (rank == own and checkpointing == self.request.checkpointing):
            return [own]
        if checkpointing and min(ends) <= own <= max(ends):
            return sorted(ends)
        return sorted({own, *ends})

    def _corner(self, rank: int, rows: int, checkpointing: bool | int) -> Trace:
        own = self.request
        resized_request = resized(own, rows, own.width)
        # AdaLoRA's first rank follows the rank where it is not the run's own.
        lora = own.lora if rank == own.lora.r else replace(own.lora, r=rank, alpha=None, initial_rank=None)
        return self._trace(replace(resized_request, lora=lora, checkpointing=checkpointing))

    def _trace(self, request: MemoryRequest) -> Trace:
        key = repr(replace(request, accumulation=1))
        if key not in self._traces:
            trace = trace_whole if has_no_stages(request) else trace_stages
            self._traces[key] = trace(self.model, request, self.device_type)
        return self._traces[key]

    def _possible_ranks(self) -> list[int]:
        """Lists those of `RANKS` that the model's layers are wide enough for; none without a rank."""
        lora = self.request.lora
        if lora.method not in RANKED_METHODS:
            return []
        possible = []
        for rank in RANKS:
            try:
                check_adapter(self.model, replace(lora, r=rank, alpha=None, initial_rank=None))
            except ConfigError:
                break
            possible.append(rank)
        return possible


def _on_line(nodes: Sequence[int], place: int, trace_at: Callable[[int], Trace]) -> Trace:
    """Returns the trace at a place on the lines through the traces at nodes, going on beyond the last two."""
    if place in nodes:
        return trace_at(place)
    right = min(max(1, bisect_left(nodes, place)), len(nodes) - 1)
    first, second = nodes[right - 1], nodes[right]
    return between(trace_at(first), trace_at(second), (place - first) / (second - first))
