"""The comparison in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loralab import metrics
from loralab.evaluation.matching import explain_match

ROWS = (
    ("perplexity on response tokens", metrics.BASE_TEST_PERPLEXITY, metrics.TEST_PERPLEXITY, "{:.3f}"),
    ("exact match", metrics.BASE_TEST_EXACT_MATCH, metrics.TEST_EXACT_MATCH, "{:.1%}"),
)


MOST_LINES = 6
"""Lines of a text that are shown in a cell."""
COLUMNS = ("prompt", "reference", "base", "tuned")
BORDERS = 3 * len(COLUMNS) + 1
"""Characters of a line that the frame of the table takes."""


def print_comparison(
    console: Console,
    figures: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    num_samples: int,
    samples_path: Path,
) -> None:
    """Prints the figures of both models and some prompts side by side.

    Args:
        console: Where to print.
        figures: By metric name.
        predictions: Every prompt with its reference and both answers.
        num_samples: How many of them are shown.
        samples_path: Where those stand whole.
    """
    answered = f", {len(predictions):,} rows" if predictions else ""
    table = Table(title=f"held-out test split{answered}", title_justify="left")
    for column in ("", "base", "tuned"):
        table.add_column(column, justify="right" if column else "left")
    for label, base, tuned, form in ROWS:
        if figures.get(tuned) is not None:
            table.add_row(label, form.format(figures[base]), form.format(figures[tuned]))
    console.print(table)
    if predictions:
        console.print(explain_match([row["reference"] for row in predictions]), soft_wrap=True)
    if samples := predictions[:num_samples]:
        _print_side_by_side(console, samples, samples_path)


def _print_side_by_side(console: Console, samples: Sequence[Mapping[str, Any]], samples_path: Path) -> None:
    table = Table(title="the same prompts, side by side", title_justify="left", show_lines=True, expand=True)
    for column in COLUMNS:
        table.add_column(column, ratio=1, overflow="fold")
    width, any_cut = max(1, (console.width - BORDERS) // len(COLUMNS)), False
    for row in samples:
        texts = (row["prompt"], row["reference"], *(_mark(row, model) for model in ("base", "tuned")))
        cells = [_shorten(console, text, width) for text in texts]
        any_cut |= any(cell != text for cell, text in zip(cells, texts, strict=True))
        styles = ("", "", *(_style(row, model) for model in ("base", "tuned")))
        # Text, not markup: an answer may hold square brackets.
        table.add_row(*(Text(cell, style=style) for cell, style in zip(cells, styles, strict=True)))
    console.print(table)
    if any_cut:
        console.print(f"whole texts: {samples_path}, and the report", soft_wrap=True)


def _shorten(console: Console, text: str, width: int) -> str:
    """Returns a text, or the first lines that it has in a column of that width."""
    lines = Text(text).wrap(console, width)
    if len(lines) <= MOST_LINES:
        return text
    *first, last = (line.plain for line in lines[:MOST_LINES])
    return "\n".join([*first, f"{set_cell_size(last.rstrip(), max(0, width - 2)).rstrip()} …"])


def _mark(row: Mapping[str, Any], model: str) -> str:
    return f"{'✓' if row[f'{model}_match'] else '✗'} {row[model]}"


def _style(row: Mapping[str, Any], model: str) -> str:
    return "green" if row[f"{model}_match"] else "red"
