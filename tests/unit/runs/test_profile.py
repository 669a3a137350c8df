"""The profile of a run as figures, words and tables."""

import gzip
import json
from pathlib import Path
from typing import Any

from loralab.runs.profile import (
    Course,
    Row,
    StepProfile,
    cells,
    describe,
    profile_steps,
    read_trace,
    to_markdown,
)


def event(name: str, start: float, end: float, category: str = "user_annotation") -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "tid": 1, "ts": start, "dur": end - start, "args": {}}


EVENTS = [
    event("step 3", 0, 100_000),
    event("forward", 20_000, 80_000),
    event("norms: model.norm", 30_000, 40_000),
    event("aten::mul", 31_000, 36_000, "cpu_op"),
    event("step 4", 100_000, 400_000),
    event("backward", 200_000, 400_000),
]
COURSE = Course(steps=(3, 4), tokens=800, warmup_steps=1, warmup_tokens=500, warmup_s=0.2)


def profile() -> StepProfile:
    found = profile_steps(EVENTS, COURSE)
    assert found is not None
    return found


def test_figures_are_means_of_the_steps() -> None:
    found = profile()
    assert (found.first_step, found.num_steps, found.device) == (3, 2, "cpu")
    assert found.step_ms == 200
    assert found.tokens_per_s == 2000
    assert found.tokens_per_s_before == 2500
    assert found.parts == (
        Row("forward", "output head and loss", 25, 0.125, 0.5),
        Row("forward", "norms", 5, 0.025, 0.5),
        Row("backward", "between layers", 100, 0.5, 0.5),
        Row("rest", "loop", 70, 0.35, 1),
    )
    assert sum(row.ms for row in found.parts) == found.step_ms
    assert found.operators == (Row("", "aten::mul", 2.5, 0.0125, 0.5),)


def test_a_trace_without_a_whole_step_gives_no_profile() -> None:
    assert profile_steps(EVENTS, COURSE._replace(steps=())) is None


def test_a_profile_comes_back_from_its_file() -> None:
    found = profile()
    assert StepProfile.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_it_says_what_was_measured_and_that_measuring_slows() -> None:
    assert describe(profile()) == (
        "Steps 3 to 4: 200.0 ms each, 2,000 tokens/s; in the step before, without the profiler, 2,500. "
        "Profiled steps are slower than others: recording takes time, most where operators are small."
    )
    found = profile_steps(EVENTS, Course((4,), 300, 0, 0, 0.0))
    assert found is not None
    assert describe(found).startswith("Step 4: 300.0 ms each, 1,000 tokens/s. Profiled")


def test_the_table_lists_parts_their_sum_and_operators() -> None:
    lines = to_markdown(profile()).splitlines()
    assert "| forward: output head and loss | 25.00 | 12.5% | 0.5 |" in lines
    assert "| **step** | **200.00** | **100.0%** |  |" in lines
    assert "| aten::mul | 2.50 | 1.2% | 0.5 |" in lines


def test_a_row_is_written_with_its_unit_of_thousands() -> None:
    assert cells(Row("", "aten::mm", 1234.567, 0.5, 1259.0)) == ("aten::mm", "1,234.57", "50.0%", "1,259")


def test_a_trace_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": EVENTS}).encode()))
    assert read_trace(path) == EVENTS
