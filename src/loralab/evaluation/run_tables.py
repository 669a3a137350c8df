"""Tables of a run's report about its course: what was done about steps, and answers over time."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loralab import metrics
from loralab.evaluation.plots import to_float
from loralab.evaluation.report_tables import ReportTable
from loralab.evaluation.run_record import RunRecord
from loralab.runs.profile import StepProfile, cells, describe, explain

MOST_INCIDENTS, MOST_ROWS, MOST_CHARS = 100, 8, 400
"""Incidents shown; rows named for each; characters shown of an answer."""


def incident_table(lines: Sequence[Mapping[str, Any]]) -> ReportTable | None:
    """Lists what was done about steps; None where nothing was.

    Args:
        lines: The lines of `metrics.jsonl`.
    """
    found = [line for line in lines if metrics.INCIDENT_KIND in line]
    if not found:
        return None
    rows = [
        (
            str(line.get("step")),
            str(line[metrics.INCIDENT_KIND]),
            str(line.get(metrics.INCIDENT_CAUSE, "")),
            _first(line.get(metrics.INCIDENT_ROWS) or ()),
        )
        for line in found[:MOST_INCIDENTS]
    ]
    more = f" The first {MOST_INCIDENTS} of {len(found)}." if len(found) > MOST_INCIDENTS else ""
    return ReportTable(
        "Incidents",
        f"What was done about steps, and the rows that they saw; metrics.jsonl holds all.{more}",
        ("Step", "What", "Why", "Rows"),
        rows,
    )


def describe_course(run: RunRecord, max_steps: object) -> str:
    """Says in a line why training ended where it did, and where it was best."""
    parts, most = [], to_float(max_steps)
    if reason := run.summary.get("stopped_early"):
        parts.append(f"stopped early: {reason}")
    elif most is not None:
        parts.append(f"of at most {most:,.0f}")
    validated = [(to_float(line.get(metrics.VAL_LOSS)), to_float(line.get("step"))) for line in run.metrics]
    # Step 0 is the base model, which is no checkpoint.
    found = [(loss, step) for loss, step in validated if step and loss is not None and math.isfinite(loss)]
    if found:
        loss, step = min(found)
        parts.append(f"lowest validation loss {loss:.4g} after step {step:,.0f}")
    return "; ".join(parts)


def profile_tables(profile: Mapping[str, Any]) -> Iterator[ReportTable]:
    """Yields the parts of a step and its most expensive operators; nothing where no step was profiled.

    Args:
        profile: What `profile/table.json` holds.
    """
    if not profile:
        return
    found = StepProfile.from_json(profile)
    total = ("step", f"{found.step_ms:,.2f}", "100.0%", "")
    columns = ("ms per step", "Share", "Calls per step")
    yield ReportTable(
        "Parts of a step",
        f"{describe(found)} {explain(found)}",
        ("Part", *columns),
        [*map(cells, found.parts), total],
    )
    yield ReportTable(
        "The most expensive operators",
        "Each without those that it calls. profile/trace.json.gz holds all, for Perfetto or chrome://tracing.",
        ("Operator", *columns),
        list(map(cells, found.operators)),
    )


def watch_tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[ReportTable]:
    """Yields a table for each prompt that was answered at every validation, the first answer first.

    Args:
        rows: The lines of `watch.jsonl`: `step`, `prompt`, `reference` and `answer`.
    """
    answers: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for row in rows:
        key = (str(row.get("prompt", "")), str(row.get("reference", "")))
        step = row.get("step")
        answers.setdefault(key, []).append((f"{step}" if step else "base", _clip(str(row.get("answer", "")))))
    for number, ((prompt, reference), found) in enumerate(answers.items(), start=1):
        yield ReportTable(
            f"Watched prompt {number}",
            _clip(prompt),
            ("Step", "Answer"),
            [*found, ("reference", _clip(reference))],
        )


def _first(rows: Sequence[Any]) -> str:
    shown = ", ".join(map(str, rows[:MOST_ROWS]))
    return shown + (f" and {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else "")


def _clip(text: str) -> str:
    return text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]} \N{HORIZONTAL ELLIPSIS}"
