"""Where a step's time goes: the profile of a run as figures, as a table, and as a file."""

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from loralab.runs.step_parts import STAGES
from loralab.runs.trace import StepTimes, measure_steps

MOST_OPERATORS = 15
"""Operators listed; the trace holds all."""
US_PER_MS, US_PER_S = 1e3, 1e6
TRACE, TABLE, FIGURES = "trace.json.gz", "table.md", "table.json"
"""Files of a profile. The trace opens in Perfetto and chrome://tracing."""
NOTE = (
    "The parts add up to the step. A layer inside another one counts for itself alone. Calls are of modules, "
    "in the backward pass of nodes of its graph."
)
GPU_NOTE = " Times are those of kernels on the GPU; where none runs, the row says what it waits for."


class Row(NamedTuple):
    """A part of a step, or an operator."""

    stage: str
    """Of a part; empty for an operator."""
    name: str
    ms: float
    """Milliseconds per step; of an operator without those that it calls."""
    share: float
    """Of the step, 0 to 1."""
    calls: float
    """Per step."""

    @property
    def label(self) -> str:
        """What a table calls it."""
        return f"{self.stage}: {self.name}" if self.stage else self.name


@dataclass(frozen=True)
class StepProfile:
    """Mean of the profiled steps."""

    first_step: int
    """Number of the first one, as in `metrics.jsonl`."""
    num_steps: int
    device: str
    """cpu or cuda."""
    step_ms: float
    """Wall time of a step, from the end of the one before."""
    tokens_per_s: float
    """Without padding, while profiled."""
    tokens_per_s_before: float | None
    """The same of the warm-up, its first step left out; None where there is no other."""
    warmup_steps: int
    """Steps that this is measured on."""
    parts: tuple[Row, ...]
    """In the order of a step, in each stage the largest first; they add up to the step."""
    operators: tuple[Row, ...]
    """The most expensive, the first one most."""

    def to_json(self) -> dict[str, Any]:
        """Returns what `table.json` holds."""
        rows = {name: [row._asdict() for row in getattr(self, name)] for name in ("parts", "operators")}
        return {**asdict(self), **rows}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "StepProfile":
        """Takes back what `to_json` gave."""
        rows = {name: tuple(Row(**row) for row in content[name]) for name in ("parts", "operators")}
        return cls(**{**content, **rows})


class Course(NamedTuple):
    """What a run knows of its profiled steps beside their trace."""

    steps: tuple[int, ...]
    """Numbers of those that were finished."""
    tokens: int
    """Of all of them, without padding."""
    warmup_steps: int
    """Steps before them that were timed without a profiler."""
    warmup_tokens: int
    warmup_s: float


def read_trace(path: Path) -> list[dict[str, Any]]:
    """Reads the events of a trace that the profiler wrote."""
    with gzip.open(path, "rb") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return events


def profile_steps(events: list[dict[str, Any]], course: Course) -> StepProfile | None:
    """Makes the profile of a trace; None where it holds no whole step."""
    times = measure_steps(events, course.steps)
    if not times.num_steps or not times.wall:
        return None
    return StepProfile(
        first_step=min(course.steps),
        num_steps=times.num_steps,
        device="cuda" if times.on_gpu else "cpu",
        step_ms=times.wall / times.num_steps / US_PER_MS,
        tokens_per_s=course.tokens / times.wall * US_PER_S,
        tokens_per_s_before=course.warmup_tokens / course.warmup_s if course.warmup_s else None,
        warmup_steps=course.warmup_steps,
        parts=tuple(sorted(_part_rows(times), key=lambda row: (STAGES.index(row.stage), -row.ms))),
        operators=tuple(
            _row(times, "", name, time, times.operator_calls[name])
            for name, time in Counter(times.operators).most_common(MOST_OPERATORS)
        ),
    )


def describe(profile: StepProfile) -> str:
    """Says in a line or two what was measured, and what measuring cost."""
    last = profile.first_step + profile.num_steps - 1
    steps = f"Step {last}" if profile.num_steps == 1 else f"Steps {profile.first_step} to {last}"
    before = ""
    if profile.tokens_per_s_before is not None:
        count = profile.warmup_steps
        of = "step" if count == 1 else f"{count} steps"
        before = f"; in the {of} before, without the profiler, {profile.tokens_per_s_before:,.0f}"
    return (
        f"{steps}: {profile.step_ms:,.1f} ms each, {profile.tokens_per_s:,.0f} tokens/s{before}. Profiled "
        "steps are slower than others: recording takes time, most where operators are small."
    )


def explain(profile: StepProfile) -> str:
    """Says how the parts of a step are to be read."""
    return NOTE + (GPU_NOTE if profile.device == "cuda" else "")


def cells(row: Row) -> tuple[str, str, str, str]:
    """Writes a row: label, milliseconds, share, calls."""
    calls = f"{row.calls:,.0f}" if row.calls == round(row.calls) else f"{row.calls:,.1f}"
    return row.label, f"{row.ms:,.2f}", f"{row.share:.1%}", calls


def to_markdown(profile: StepProfile) -> str:
    """Writes `table.md`."""
    total = ("**step**", f"**{profile.step_ms:,.2f}**", "**100.0%**", "")
    parts = [cells(row) for row in profile.parts]
    return "\n".join([
        "# Where a step's time goes", "", describe(profile), "", explain(profile), "",
        *_table("Part", [*parts, total]), "",
        f"The {len(profile.operators)} most expensive operators, each without those that it calls:", "",
        *_table("Operator", [cells(row) for row in profile.operators]), "",
    ])  # fmt: skip


def _table(heading: str, rows: list[tuple[str, str, str, str]]) -> list[str]:
    head = [f"| {heading} | ms per step | Share | Calls per step |", "|---|---:|---:|---:|"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def _part_rows(times: StepTimes) -> list[Row]:
    return [
        _row(times, part.stage, part.name, time, times.part_calls[part]) for part, time in times.parts.items()
    ]


def _row(times: StepTimes, stage: str, name: str, time: float, calls: int) -> Row:
    per_step = time / times.num_steps / US_PER_MS
    return Row(stage, name, per_step, time / times.wall, calls / times.num_steps)
