"""What the time of a step went to, read from the trace of a profiler.

Every moment of a step belongs to one part of it. On a CPU that is what the main thread does then. On a GPU it
is what launched the kernel that runs then; where none runs, the main thread says what the GPU waits for.
"""

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loralab.runs.step_parts import (
    DATA,
    EXCHANGE,
    FORWARD,
    LOOP,
    PROCESSES,
    REST,
    STEP,
    WAIT,
    Part,
    part_of,
)

ANNOTATION, OPERATOR = "user_annotation", "cpu_op"
ON_CPU = (ANNOTATION, OPERATOR, "cuda_runtime", "cuda_driver")
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of events: what threads do, calls that launch kernels among it, and what a GPU does."""
COMMUNICATION = re.compile(r"nccl", re.IGNORECASE)
"""Names of kernels that exchange with other GPUs, and mostly wait for them."""
NUMBER, CORRELATION = "Sequence number", "correlation"
"""Arguments of events: the node of the autograd graph, and what a kernel has in common with its launch."""

Event = Mapping[str, Any]
Span = tuple[float, float]
"""Beginning and end, in microseconds."""


class Frame(NamedTuple):
    """What runs at some moment."""

    part: Part | None
    """None outside of steps."""
    operator: str | None
    """The innermost operator; None between operators."""


NOTHING = Frame(None, None)


class Slice(NamedTuple):
    """A stretch of time in which the same thing runs."""

    start: float
    """In microseconds."""
    end: float
    frame: Frame


@dataclass
class StepTimes:
    """What the time of several steps went to, in microseconds."""

    wall: float = 0.0
    """All of it."""
    num_steps: int = 0
    """Steps that were found."""
    on_gpu: bool = False
    """Whether kernels of a GPU were recorded."""
    parts: dict[Part, float] = field(default_factory=lambda: defaultdict(float))
    """Time of each part; they add up to `wall`."""
    part_calls: Counter[Part] = field(default_factory=Counter)
    """Modules run, or nodes of the autograd graph in the backward pass."""
    operators: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Time of each operator without those that it calls."""
    operator_calls: Counter[str] = field(default_factory=Counter)
    """How often each ran."""


def measure_steps(events: Iterable[Event], steps: Sequence[int]) -> StepTimes:
    """Divides steps into parts.

    Args:
        events: `traceEvents` of a trace in Chrome's format.
        steps: Numbers of the steps to look at; their ranges are called `step N`.
    """
    whole = [event for event in events if event.get("ph") == "X"]
    names = {f"{STEP}{number}" for number in steps}
    # A GPU's stream shows the same names once more.
    steps_here = (event for event in whole if event["name"] in names and event.get("cat") in ON_CPU)
    found = sorted((_span(event), event["tid"]) for event in steps_here)
    windows = [span for span, _ in found]
    times = StepTimes(sum(end - start for start, end in windows), len(windows))
    if not windows:
        return times
    threads: dict[Any, list[Event]] = defaultdict(list)
    for event in whole:
        if event.get("cat") in ON_CPU:
            threads[event["tid"]].append(event)
    reader = _Reader(times, windows)
    main = list(reader.slices(threads.pop(found[0][1]), lambda at: NOTHING))
    starts = [each.start for each in main]

    def beside(at: float) -> Frame:
        """What the main thread does at a moment, which another thread does for it."""
        place = bisect_right(starts, at) - 1
        return Frame(main[place].frame.part, None) if place >= 0 else NOTHING

    for thread in threads.values():
        for _ in reader.slices(thread, beside):
            pass
    kernels = sorted(reader.kernels(whole))
    _add_up(times, windows, main, kernels)
    return times


def fill(gaps: Sequence[Span], slices: Sequence[Slice]) -> tuple[list[Slice], list[Span]]:
    """Lays slices into gaps; where several want the same moment, the one that began first has it.

    Args:
        gaps: Stretches of time, ascending and apart.
        slices: In the order of their beginning.

    Returns:
        What of the slices lies in the gaps, and what is left of the gaps.
    """
    taken: list[Slice] = []
    left: list[Span] = []
    first = 0
    for start, end in gaps:
        at = start
        while first < len(slices) and slices[first].end <= start:
            first += 1
        for number in range(first, len(slices)):
            each = slices[number]
            if each.start >= end:
                break
            if each.end <= at:
                continue
            if each.start > at:
                left.append((at, each.start))
            taken.append(Slice(max(at, each.start), min(end, each.end), each.frame))
            at = taken[-1].end
        if at < end:
            left.append((at, end))
    return taken, left


def _add_up(times: StepTimes, windows: list[Span], main: list[Slice], kernels: list[Slice]) -> None:
    """Gives every moment of the steps to a part: kernels first, those that exchange after the others."""
    times.on_gpu = bool(kernels)
    exchange = Part(PROCESSES, EXCHANGE)
    busy = [each for each in kernels if each.frame.part != exchange]
    exchanging = [each for each in kernels if each.frame.part == exchange]
    gaps = windows
    for layer in (busy, exchanging, [_waiting(each) for each in main] if kernels else main):
        taken, gaps = fill(gaps, layer)
        for start, end, frame in taken:
            times.parts[frame.part or Part(REST, LOOP)] += end - start
            if frame.operator is not None:
                times.operators[frame.operator] += end - start


class _Reader:
    """Reads one thread after the other, the main thread first: the others run what it recorded."""

    def __init__(self, times: StepTimes, windows: Sequence[Span]) -> None:
        self.times = times
        self.windows = windows
        self.made: dict[int, str] = {}
        """By its number the kind of module that made each node of the autograd graph."""
        self.launches: dict[int, Frame] = {}
        """By correlation what launched each kernel."""

    def slices(self, events: Iterable[Event], beside: Callable[[float], Frame]) -> Iterator[Slice]:
        """Yields what a thread does from moment to moment, the innermost of what is nested.

        Args:
            events: Those of one thread.
            beside: What a moment belongs to where nothing of the thread says so.
        """
        stack: list[tuple[float, Frame]] = []
        at = 0.0

        def until(time: float) -> Iterator[Slice]:
            """Yields what is open up to a moment, and closes what ends by then."""
            nonlocal at
            while stack:
                end, frame = stack[-1]
                if (reached := min(end, time)) > at:
                    yield Slice(at, reached, frame)
                    at = reached
                if end > time:
                    return
                stack.pop()

        for event in sorted(events, key=_nesting):
            start, end = _span(event)
            yield from until(start)
            at = max(at, start)
            parent = stack[-1][1] if stack else beside(start)
            # Rounded times may stick out of what they lie in.
            stack.append((min(end, stack[-1][0]) if stack else end, self._open(event, parent)))
        yield from until(float("inf"))

    def kernels(self, events: Iterable[Event]) -> Iterator[Slice]:
        """Yields what a GPU did, by what launched it."""
        for event in events:
            if event.get("cat") in ON_GPU:
                frame = self.launches.get(event.get("args", {}).get(CORRELATION, -1), NOTHING)
                is_exchange = COMMUNICATION.search(event["name"]) is not None
                part = Part(PROCESSES, EXCHANGE) if is_exchange else frame.part
                yield Slice(*_span(event), Frame(part or Part(REST, LOOP), frame.operator or event["name"]))

    def _open(self, event: Event, inside: Frame) -> Frame:
        name, arguments = event["name"], event.get("args", {})
        if event["cat"] not in (ANNOTATION, OPERATOR):
            self.launches[arguments.get(CORRELATION, -1)] = inside
            return inside
        number = arguments.get(NUMBER)
        part = part_of(name, inside.part, number, self.made)
        is_counted = any(start <= event["ts"] < end for start, end in self.windows)
        if is_counted and part is not None and part != inside.part:
            self.times.part_calls[part] += 1
        if event["cat"] == ANNOTATION:
            return Frame(part, None)
        if is_counted:
            self.times.operator_calls[name] += 1
        # An operator that makes no node has the number of the next one, which comes later.
        if number is not None and part is not None and part.stage == FORWARD:
            self.made[number] = part.name
        return Frame(part, name)


def _waiting(each: Slice) -> Slice:
    """What a moment is called in which the GPU does nothing."""
    part = each.frame.part
    is_elsewhere = part is None or part.stage in (DATA, PROCESSES, REST)
    return Slice(each.start, each.end, Frame(part if is_elsewhere else Part(REST, WAIT), None))


def _span(event: Event) -> Span:
    return event["ts"], event["ts"] + event["dur"]


def _nesting(event: Event) -> Span:
    return event["ts"], -event["dur"]
