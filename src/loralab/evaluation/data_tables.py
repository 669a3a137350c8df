"""The facts about data in the terminal."""

from collections.abc import Container, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loralab.data.tally import RemovedRow
from loralab.evaluation import data_rows
from loralab.evaluation.data_facts import DataFacts, PlanFacts, ShownExample
from loralab.evaluation.data_rows import RemovedGroup
from loralab.evaluation.token_view import as_terminal_text, printable

TERMINAL_EXAMPLES = 3
TERMINAL_TOKENS = 240
"""Tokens shown of an example, so that a few fill a screen."""
MOST_HEADING = 8
"""Characters of a heading that stays on one line."""
TERMINAL_REMOVED = 2
"""Rows shown of what each check left out."""


def print_facts(console: Console, facts: DataFacts) -> None:
    """Prints what became of the rows, what is learned of them, and what the run would do."""
    report = facts.report
    _heading(console, "sources")
    counts = data_rows.source_counts(report)
    console.print(_table(data_rows.COUNT_COLUMNS, counts, words=data_rows.COUNT_COLUMNS[:2]))
    console.print(Text(data_rows.SOURCE_NOTE, "dim"))
    for name, note in data_rows.source_notes(report):
        console.print(Text(printable(f"{name}: {note}"), "dim"), soft_wrap=True)
    for file in facts.files:
        console.print(Text(f"{printable(file.path)}  {file.sha256[:12]}", "dim"), soft_wrap=True)
    _print_removed(console, facts)
    _print_findings(console, facts)
    if report.ledgers:
        _heading(console, "splits")
        console.print(_on_its_side(data_rows.SPLIT_COLUMNS, data_rows.split_rows(report)))
        console.print(Text(data_rows.SPLIT_NOTE, "dim"))
    if rows := data_rows.ledger_rows(report):
        _print_table(console, "the sources in tokens, over all splits", data_rows.LEDGER_COLUMNS, rows)
    if facts.mixture:
        _print_table(console, "one epoch", data_rows.MIXTURE_COLUMNS, data_rows.mixture_rows(facts.mixture))
        console.print(Text(data_rows.MIXTURE_NOTE, "dim"))
    if facts.arrangement is not None:
        console.print(data_rows.arrangement_line(facts.arrangement, facts.max_length))
    if facts.checks:
        _heading(console, "mask check")
        console.print(Text(data_rows.check_rule(facts.bos_token)))
        console.print(_on_its_side(data_rows.CHECK_COLUMNS, data_rows.check_rows(facts)))
    for number, example in enumerate(facts.examples[:TERMINAL_EXAMPLES], start=1):
        _print_example(console, number, example)
    if facts.plan is not None:
        _print_plan(console, facts.plan)


def _print_removed(console: Console, facts: DataFacts) -> None:
    groups = data_rows.removed_groups(facts.report)
    _heading(console, "left out")
    if not groups:
        console.print("no rows")
    for group in groups:
        _print_group(console, group)


def _print_findings(console: Console, facts: DataFacts) -> None:
    report = facts.report
    if findings := data_rows.finding_rows(report):
        _print_table(console, "personal data found", ("source", "kind", "findings"), findings)
        console.print(data_rows.finding_line(report, facts.privacy))
        for group in data_rows.finding_groups(report):
            _print_group(console, group)
    if report.num_overlaps:
        _heading(console, f"{report.num_overlaps:,} training rows overlap with rows held out")
        for row in report.overlaps[:TERMINAL_REMOVED]:
            console.print(_removed_row(row))


def _print_group(console: Console, group: RemovedGroup) -> None:
    console.print(Text.assemble((f"{group.check}: {group.count:,}", "bold"), f" · {printable(group.where)}"))
    for row in group.examples[:TERMINAL_REMOVED]:
        console.print(_removed_row(row))
        if row.excerpt:
            console.print(Text(f"    {printable(row.excerpt)}", "dim"))


def _removed_row(row: RemovedRow) -> Text:
    reason = f": {row.reason}" if row.reason else ""
    return Text(printable(f"  {row.file} {row.place}{reason}"), overflow="fold")


def _print_example(console: Console, number: int, example: ShownExample) -> None:
    counts = f"{len(example.tokens):,} tokens, {example.num_learned:,} learned (highlighted)"
    _heading(console, f"training example {number}", f"{printable(example.place)} · {counts}")
    text = as_terminal_text(example.tokens, TERMINAL_TOKENS)
    console.print(text, end="" if text.plain.endswith("\n") else "\n")


def _print_plan(console: Console, plan: PlanFacts) -> None:
    _heading(console, "the plan", plan.model)
    table = Table(show_header=False)
    for style in ("", "bold", "dim"):
        table.add_column(style=style, overflow="fold")
    for figure in data_rows.plan_figures(plan):
        table.add_row(figure.label, Text(figure.value), Text(figure.note))
    for part, size in data_rows.memory_rows(plan):
        table.add_row(f"  {part}", f"  {size}", plan.memory_note if part == "activations" else "")
    console.print(table)


def _heading(console: Console, text: str, about: str = "") -> None:
    console.print()
    console.print(Text.assemble((text, "bold"), f"  {about}" if about else ""))


def _print_table(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    _heading(console, title)
    console.print(_table(columns, rows))


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], words: Container[str] = data_rows.WORD_COLUMNS
) -> Table:
    table = Table()
    for column in columns:
        # Headings of two lines leave room for what stands below the others.
        heading = column if len(column) <= MOST_HEADING else "\n".join(column.rsplit(" ", 1))
        table.add_column(heading, justify="left" if column in words else "right", overflow="fold")
    for row in rows:
        # Text, not markup: a name may hold square brackets.
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _on_its_side(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Makes a column of each row: many figures of few splits do not fit a narrow terminal."""
    heads, *lines = zip(columns, *rows, strict=True)
    return _table(("", *heads[1:]), lines)
