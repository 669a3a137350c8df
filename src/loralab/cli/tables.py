"""What the data commands print."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loralab.cli.gathering import FieldCount, Gathered, Opened
from loralab.cli.profile import Profile, Spread, spread
from loralab.config.data import DataConfig
from loralab.data.opening import source_files
from loralab.data.tally import RemovedRow, Tally

SHOWN_FILES = 5
SHOWN_FIELDS = 20
SHOWN_TURN_COUNTS = 6
MOST_ROWS_OF_A_CHECK = 3
MOST_EXCERPT_CHARS = 80
BILLION, MILLION = 10**9, 10**6


def make_console(stderr: bool = False) -> Console:
    """A console that prints data as it is: no markup, nothing highlighted."""
    return Console(stderr=stderr, markup=False, highlight=False)


def visible(text: str) -> str:
    """Returns text with control characters written out, so that data cannot command the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)


def say(console: Console, text: str, style: str = "") -> None:
    """Prints a line that the terminal may wrap, whole where it goes to a file."""
    console.print(Text(visible(text), style=style), soft_wrap=True)


def make_table(*columns: str, title: str = "") -> Table:
    """A plain table; columns whose name starts with `>` hold numbers."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        if column.startswith(">"):
            table.add_column(column[1:], justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def show_table(console: Console, table: Table) -> None:
    """Prints a table and an empty line."""
    console.print(table)
    console.print()


def cells(*values: str) -> list[Text]:
    """Cells that show text as it is."""
    return [Text(visible(value)) for value in values]


def count(number: int) -> str:
    """Writes a number of parameters short, such as 8.03 B."""
    if number >= BILLION:
        return f"{number / BILLION:.2f} B"
    return f"{number / MILLION:.1f} M" if number >= MILLION else f"{number:,}"


def print_source(console: Console, opened: Opened, tally: Tally) -> None:
    """Prints what a source is, and how many of its rows stay."""
    files = [str(path) for path in source_files(opened.source)] or [str(opened.source.path)]
    say(console, opened.source.name, "bold")
    say(console, f"  form   {opened.reason}")
    for file in files[:SHOWN_FILES]:
        say(console, f"  file   {file}")
    if len(files) > SHOWN_FILES:
        say(console, f"         and {len(files) - SHOWN_FILES} more files")
    say(console, f"  rows   {balance(tally)}")
    console.print()


def plural(count: int, what: str) -> str:
    """Returns a number with its noun, such as `1 row`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def balance(tally: Tally) -> str:
    """Says where all rows of a tally are: rows read are rows kept and rows left out."""
    return f"{tally.rows:,} read = {tally.kept:,} kept + {tally.num_removed:,} left out"


def total(tallies: Iterable[Tally]) -> Tally:
    """Adds tallies up."""
    whole = Tally()
    for tally in tallies:
        whole.add(tally)
    return whole


def print_removed(console: Console, tally: Tally) -> None:
    """Prints what each check left out, with examples."""
    if not tally.removed:
        return
    table = make_table("check", ">rows", "such as", title="left out")
    for check, removals in tally.removed.items():
        shown = [_describe(row) for row in removals.examples[:MOST_ROWS_OF_A_CHECK]]
        table.add_row(*cells(check, f"{removals.count:,}", "\n".join(shown)))
    show_table(console, table)


def print_fields(console: Console, fields: Mapping[str, FieldCount], num_rows: int) -> None:
    """Prints the fields of the raw rows."""
    if not fields:
        return
    table = make_table("field", ">in rows", "holds")
    for name, count in list(fields.items())[:SHOWN_FIELDS]:
        share = f"{count.rows:,} ({count.rows / num_rows:.0%})"
        types = ", ".join(f"{kind} ({n:,})" for kind, n in count.types.most_common())
        table.add_row(*cells(name, share, types if len(count.types) > 1 else next(iter(count.types))))
    if len(fields) > SHOWN_FIELDS:
        table.add_row(*cells(f"and {len(fields) - SHOWN_FIELDS} more", "", ""))
    show_table(console, table)


def print_profile(console: Console, profile: Profile) -> None:
    """Prints who speaks in the kept rows and how much."""
    if not profile.rows:
        return
    turns = _listed(profile.roles.most_common())
    say(console, f"turns  {turns}")
    counts = sorted(profile.turns.items())
    shown = [(f"of {plural(turns, 'turn')}", rows) for turns, rows in counts[:SHOWN_TURN_COUNTS]]
    if more := sum(rows for _, rows in counts[SHOWN_TURN_COUNTS:]):
        shown.append((f"of {counts[SHOWN_TURN_COUNTS][0]} to {counts[-1][0]} turns", more))
    say(console, f"rows   {_listed(shown)}")
    if parts := [(name, rows) for name, rows in profile.parts.items() if rows]:
        say(console, f"with   {_listed(parts)}")
    console.print()
    table = make_table("characters", ">min", ">median", ">p95", ">max")
    for name, lengths in profile.chars.items():
        table.add_row(*cells(name, *spread_cells(spread(lengths))))
    show_table(console, table)


def print_findings(console: Console, gathered: Gathered, config: DataConfig) -> None:
    """Prints duplicates and personal data."""
    removed = total(gathered.tallies).removed
    exact, near = (removed[name].count if name in removed else 0 for name in ("duplicate", "near_duplicate"))
    say(console, f"exact duplicates  {f'{exact:,}' if config.dedup.exact else 'not looked for'}")
    looked = config.dedup.near != "none"
    by = f"{near:,} by {config.dedup.near}, from a similarity of {config.dedup.threshold:g}"
    say(console, f"near duplicates   {by if looked else 'not looked for: dedup.near=prompt or conversation'}")
    private = sum((account.private for account in gathered.accounts), Counter[str]())
    action = config.privacy.action
    found = _listed(private.items()) if private else "none found"
    say(console, f"personal data     {'not looked for' if action == 'none' else f'{found} ({action})'}")
    for kind in private:
        rows = [row for account in gathered.accounts for row in account.private_examples.get(kind, ())]
        for row in rows[:MOST_ROWS_OF_A_CHECK]:
            say(console, f"  {kind}  {row.file} {row.place}: {_shown(row)}")


def spread_cells(values: Spread) -> list[str]:
    """The cells of lowest, median, 95th percentile and highest."""
    return [f"{values.low:,}", f"{values.median:,.0f}", f"{values.p95:,.0f}", f"{values.high:,}"]


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts)


def _describe(row: RemovedRow) -> str:
    text = f"{row.file} {row.place}: {row.reason}".replace(f"{Path(row.file).parent}/", "")
    return f"{text}\n  {_shown(row)}" if row.excerpt else text


def _shown(row: RemovedRow) -> str:
    """The beginning of what a report shows of a row."""
    return row.excerpt if len(row.excerpt) <= MOST_EXCERPT_CHARS else f"{row.excerpt[:MOST_EXCERPT_CHARS]}…"


def print_written(console: Console, tally: Tally, files: Mapping[str, tuple[int, Path]]) -> None:
    """Prints what was left out, the rows of each file, and that they add up."""
    print_removed(console, tally)
    width = max(map(len, files))
    for name, (num_rows, path) in files.items():
        say(console, f"{name:<{width}}  {plural(num_rows, 'row')}  {path}")
    say(console, f"rows: {balance(tally)}; {sum(rows for rows, _ in files.values()):,} written")


def print_shared(console: Console, shared: Mapping[tuple[str, str], int]) -> None:
    """Prints whether any content stands in two files."""
    if not any(shared.values()):
        say(console, "disjoint: no content hash stands in two files, read back from the files", "green")
        return
    for (one, other), count in shared.items():
        if count:
            say(console, f"not disjoint: {count:,} contents stand in both {one} and {other}", "red")
