"""The comparison in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loralab import metrics

ROWS = (
    ("perplexity on response tokens", metrics.BASE_TEST_PERPLEXITY, metrics.TEST_PERPLEXITY, "{:.3f}"),
    ("exact match", metrics.BASE_TEST_EXACT_MATCH, metrics.TEST_EXACT_MATCH, "{:.1%}"),
)


def print_comparison(
    console: Console, figures: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
) -> None:
    """Prints the figures of both models and some prompts side by side."""
    table = Table(title="held-out test split", title_justify="left")
    for column in ("", "base", "tuned"):
        table.add_column(column, justify="right" if column else "left")
    for label, base, tuned, form in ROWS:
        if figures.get(tuned) is not None:
            table.add_row(label, form.format(figures[base]), form.format(figures[tuned]))
    console.print(table)
    if samples:
        console.print(_side_by_side(samples))


def _side_by_side(samples: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="the same prompts, side by side", title_justify="left", show_lines=True)
    for column in ("prompt", "reference", "base", "tuned"):
        table.add_column(column, ratio=1, overflow="fold")
    for row in samples:
        table.add_row(
            # Text, not markup: an answer may hold square brackets.
            Text(row["prompt"]),
            Text(row["reference"]),
            _marked(row["base"], row["base_match"]),
            _marked(row["tuned"], row["tuned_match"]),
        )
    return table


def _marked(answer: str, is_match: bool) -> Text:
    return Text(("✓ " if is_match else "✗ ") + answer, style="green" if is_match else "red")
