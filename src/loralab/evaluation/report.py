"""The report of a run: one self-contained HTML page, written from the files of the run folder alone."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab import metrics
from loralab.evaluation.adapter_report import LayerUpdate
from loralab.evaluation.matching import explain_match
from loralab.evaluation.pages import load_template, write_page
from loralab.evaluation.plots import PLOTS, count_non_finite, draw_plot, to_float
from loralab.evaluation.report_tables import (
    ReportTable,
    adapter_table,
    estimate_table,
    memory_table,
    quantization_table,
)
from loralab.evaluation.run_record import RunRecord, as_mapping, load_run
from loralab.evaluation.run_tables import describe_course, incident_table, profile_tables, watch_tables

MISSING = "not recorded"
SECONDS_PER_MINUTE, MINUTES_PER_HOUR = 60, 60
MAX_SAMPLES = 20
"""Samples shown; the rest stay in `samples.jsonl`."""
MAX_TEXT_CHARS = 8_000
"""Characters shown of one sample text, so that a runaway generation cannot bloat the page."""

HEADLINE_METRICS = (
    ("test perplexity", metrics.TEST_PERPLEXITY, metrics.BASE_TEST_PERPLEXITY),
    ("test exact match", metrics.TEST_EXACT_MATCH, metrics.BASE_TEST_EXACT_MATCH),
)
FALLBACK_METRIC = ("validation perplexity", metrics.VAL_PERPLEXITY, metrics.BASE_VAL_PERPLEXITY)
SPLIT_COLUMNS = {
    "rows": "Rows",
    "kept": "Kept",
    "truncated": "Truncated",
    "dropped": "Dropped",
    "tokens": "Tokens",
    "supervised_tokens": "Supervised tokens",
    "supervised_tokens_lost": "Supervised tokens lost",
    "length_p50": "Median length (tokens)",
    "length_max": "Longest (tokens)",
}


@dataclass(frozen=True)
class Comparison:
    """One metric of the base model beside that of the tuned model, ready to print."""

    label: str
    """Name of the metric."""
    base: str
    """Value of the base model."""
    tuned: str
    """Value of the tuned model."""
    change: str
    """Signed difference, with its unit."""
    outcome: str
    """`better`, `worse`, `unchanged` (equal as printed) or `not comparable`."""
    direction: str
    """Which way is good."""


@dataclass(frozen=True)
class Fact:
    """One figure of the run."""

    label: str
    """What it is."""
    value: str
    """The figure with its unit."""
    note: str = ""
    """A second, smaller line."""


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into a run folder, replacing an earlier one in a single step.

    Raises:
        DataError: the folder does not exist, or one of its YAML or JSON files cannot be parsed.
    """
    return write_page(run_dir / "report.html", render_report(load_run(run_dir)))


def render_report(run: RunRecord) -> str:
    """Renders the page."""
    comparisons = compare_to_base(run.summary)
    return load_template("report.html.jinja").render(
        run=run,
        status=str(run.summary.get("status") or ""),
        command=_command(run),
        provenance=_provenance(run.manifest),
        comparisons=comparisons,
        compared_rows=_compared_rows(run),
        verdict=state_verdict(comparisons),
        match_note=_match_note(run),
        facts=list_facts(run),
        samples=[{key: _clip(value) for key, value in row.items()} for row in run.samples[:MAX_SAMPLES]],
        plots=_plots(run),
        incidents=incident_table(run.metrics),
        watched=list(watch_tables(run.watched)),
        tables=_model_tables(run),
        profile=list(profile_tables(run.profile)),
        columns=SPLIT_COLUMNS,
        count=_count,
        manifest_rows=_flatten({k: v for k, v in run.manifest.items() if k != "chat_template"}),
    )


def compare_to_base(summary: Mapping[str, Any]) -> list[Comparison]:
    """Compares the tuned model with the base model on the test split.

    Validation perplexity stands in where no test perplexity was measured. A metric that neither model
    has is left out.
    """
    perplexity, exact_match = HEADLINE_METRICS
    measured = any(to_float(summary.get(key)) is not None for key in perplexity[1:])
    chosen = (perplexity if measured else FALLBACK_METRIC, exact_match)
    pairs = [
        (label, to_float(summary.get(base)), to_float(summary.get(tuned))) for label, tuned, base in chosen
    ]
    return [_compare(label, base, tuned) for label, base, tuned in pairs if (base, tuned) != (None, None)]


def state_verdict(comparisons: Sequence[Comparison]) -> str:
    """Answers "did it get better" in one sentence, however the answer turns out."""
    if not comparisons:
        return "No comparison with the base model was recorded"
    labels: dict[str, list[str]] = {}
    for comparison in comparisons:
        labels.setdefault(comparison.outcome, []).append(comparison.label)
    clauses = [f"{outcome} on {' and '.join(names)}" for outcome, names in labels.items()]
    return f"The tuned model is {', '.join(clauses)}"


def list_facts(run: RunRecord) -> list[Fact]:
    """Lists the figures under the headline, from the status to the share of weights trained."""
    summary, lora = run.summary, as_mapping(run.config.get("lora"))
    model, trainer = as_mapping(run.config.get("model")), as_mapping(run.config.get("trainer"))
    trainable, total = (
        to_float(summary.get(name)) for name in (metrics.TRAINABLE_PARAMS, metrics.TOTAL_PARAMS)
    )
    share = 100 * trainable / total if trainable is not None and total else math.nan
    quant = as_mapping(run.config.get("quant")).get("name")
    alpha = lora.get("alpha")
    supervised = _count(summary.get(metrics.TRAIN_SUPERVISED_TOKENS))
    return [
        Fact("Status", str(summary.get("status") or "unknown")),
        Fact(
            "Model",
            str(model.get("path") or model.get("name") or MISSING),
            f"quantization {quant}" if quant else "",
        ),
        Fact("LoRA rank", _count(lora.get("r")), "" if alpha is None else f"alpha {alpha}"),
        Fact("Steps", _count(summary.get("step")), describe_course(run, trainer.get("max_steps"))),
        Fact("Wall time", _duration(to_float(summary.get("wall_s")))),
        Fact(
            "Throughput",
            _with_unit(summary.get(metrics.TRAIN_TOKENS_PER_S), "tokens/s"),
            "" if supervised == MISSING else f"{supervised} supervised tokens",
        ),
        Fact("Peak memory", _with_unit(summary.get(metrics.MEMORY_PEAK_GIB), "GiB")),
        Fact(
            "Trainable share",
            f"{share:.3g}%" if math.isfinite(share) else MISSING,
            f"{_count(trainable)} of {_count(total)}" if math.isfinite(share) else "",
        ),
    ]


def _match_note(run: RunRecord) -> str:
    """Says what an exact match is; empty where none was looked for."""
    if metrics.TEST_EXACT_MATCH not in run.summary or not run.references:
        return ""
    return f"E{explain_match(run.references).removeprefix('e')}."


def _compared_rows(run: RunRecord) -> str:
    """Says how many rows the figures of the test split are of; empty where there are none."""
    num_rows = to_float(run.splits.get("test", {}).get("kept"))
    if num_rows is None or run.summary.get(metrics.TEST_PERPLEXITY) is None:
        return ""
    most = to_float(as_mapping(run.config.get("eval")).get("max_examples"))
    if most is None or most >= num_rows:
        return f"The test split has {_count(num_rows)} rows."
    return f"Measured on the first {_count(most)} of {_count(num_rows)} test rows (eval.max_examples)."


def _compare(label: str, base: float | None, tuned: float | None) -> Comparison:
    is_share = label.endswith("exact match")
    direction = "higher is better" if is_share else "lower is better"
    show = _percent if is_share else _figure
    texts = (show(base), show(tuned))
    if base is None or tuned is None or math.isnan(base) or math.isnan(tuned):
        return Comparison(label, *texts, "no change can be given", "not comparable", direction)
    if texts[0] == texts[1]:
        return Comparison(label, *texts, "no change", "unchanged", direction)
    gain = tuned > base if is_share else tuned < base
    difference = tuned - base
    sign = "+" if difference > 0 else "\N{MINUS SIGN}"
    if is_share:
        change = f"{sign}{abs(100 * difference):.1f} points"
    else:
        change = f"{sign}{_figure(abs(difference))}"
        if math.isfinite(difference) and base > 0:
            change += f" ({sign}{abs(100 * difference / base):.1f}%)"
    return Comparison(label, *texts, change, "better" if gain else "worse", direction)


def _plots(run: RunRecord) -> list[dict[str, Any]]:
    drawn = [(spec, draw_plot(spec, run.metrics)) for spec in PLOTS.values()]
    return [
        {"spec": spec, "svg": svg, "left_out": count_non_finite(spec, run.metrics)}
        for spec, svg in drawn
        if svg
    ]


def _model_tables(run: RunRecord) -> list[ReportTable]:
    tables = (
        quantization_table(run.quantization),
        estimate_table(run.memory),
        memory_table(run.memory),
        adapter_table([LayerUpdate(**layer) for layer in run.adapter]),
    )
    return [table for table in tables if table is not None]


def _command(run: RunRecord) -> str:
    if not run.overrides and "command" not in run.manifest:
        return ""
    return shlex.join(["python", f"{run.manifest.get('command', 'train')}.py", *map(str, run.overrides)])


def _provenance(manifest: Mapping[str, Any]) -> list[str]:
    """Lists what it takes to tell this run from another: time, seed, commit, processor."""
    git, hardware = as_mapping(manifest.get("git")), as_mapping(manifest.get("hardware"))
    parts = [str(manifest["created"])] if manifest.get("created") else []
    if manifest.get("seed") is not None:
        parts.append(f"seed {manifest['seed']}")
    if git.get("commit"):
        parts.append(
            f"commit {str(git['commit'])[:10]}" + (" with uncommitted changes" if git.get("dirty") else "")
        )
    if hardware.get("gpu") or hardware.get("cpu"):
        parts.append(str(hardware.get("gpu") or hardware.get("cpu")))
    return parts


def _figure(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}".replace("inf", "∞").replace("nan", "not a number")


def _percent(value: float | None) -> str:
    return f"{100 * value:.1f}%" if value is not None and math.isfinite(value) else _figure(value)


def _with_unit(value: object, unit: str) -> str:
    number = to_float(value)
    return MISSING if number is None else f"{_figure(number)} {unit}"


def _count(value: object) -> str:
    number = to_float(value)
    return f"{number:,.0f}" if number is not None and math.isfinite(number) else MISSING


def _duration(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), SECONDS_PER_MINUTE)
    hours, minutes = divmod(minutes, MINUTES_PER_HOUR)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _clip(value: object) -> object:
    if not isinstance(value, str) or len(value) <= MAX_TEXT_CHARS:
        return value
    return f"{value[:MAX_TEXT_CHARS]}\n… {len(value) - MAX_TEXT_CHARS:,} more characters in samples.jsonl"


def _flatten(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Lists the leaves of nested mappings and lists under dotted names."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return [(prefix, "none" if value is None else str(value))]
    return [row for key, item in items for row in _flatten(item, f"{prefix}.{key}" if prefix else key)]
