"""The facts about data as one self-contained HTML page, with every token of some examples."""

from pathlib import Path
from typing import Any

from loralab.evaluation import data_rows
from loralab.evaluation.data_facts import DataFacts, ShownExample
from loralab.evaluation.length_plot import draw_lengths
from loralab.evaluation.pages import load_template, write_page
from loralab.evaluation.token_view import clip_tokens

MOST_TOKENS = 1024
"""Tokens shown of an example; the middle of a longer one is left out."""


def write_data_page(path: Path, facts: DataFacts) -> Path:
    """Writes the page, replacing an earlier one in a single step.

    Args:
        path: The file to write.
        facts: What is known of the data; without a plan the page is about the data alone.
    """
    return write_page(path, render_data_page(facts))


def render_data_page(facts: DataFacts) -> str:
    """Renders the page."""
    report = facts.report
    histograms = {
        name: draw_lengths(ledger.histogram, facts.max_length, name)
        for name, ledger in report.ledgers.items()
    }
    return load_template("data.html.jinja").render(
        facts=facts,
        rows=data_rows,
        headline=_headline(facts),
        removed=data_rows.removed_groups(report),
        findings=data_rows.finding_rows(report),
        located=data_rows.finding_groups(report),
        ledgers=data_rows.ledger_rows(report),
        notes=data_rows.source_notes(report),
        figures=data_rows.plan_figures(facts.plan) if facts.plan is not None else [],
        histograms={name: svg for name, svg in histograms.items() if svg},
        examples=[_clipped(example) for example in facts.examples],
    )


def _headline(facts: DataFacts) -> str:
    train = facts.report.ledgers.get("train")
    if train is None:
        tallies = [source.tally for source in facts.report.sources]
        return f"{sum(t.kept for t in tallies):,} of {sum(t.rows for t in tallies):,} rows kept"
    learned = f"{train.supervised_tokens / train.tokens:.0%}" if train.tokens else "none"
    data = f"{train.examples:,} training examples, {learned} of their {train.tokens:,} tokens learned"
    if facts.plan is None:
        return data
    return f"{facts.plan.total_steps:,} steps, about {data_rows.duration(facts.plan.time_s)}: {data}"


def _clipped(example: ShownExample) -> dict[str, Any]:
    head, skipped, tail = clip_tokens(example.tokens, MOST_TOKENS)
    return {"example": example, "head": head, "skipped": skipped, "tail": tail}
