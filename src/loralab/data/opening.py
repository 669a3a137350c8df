"""Opening a source: its files, its rows, their form, and what is refused before they are taken in."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from loralab.config.data import DataConfig
from loralab.data.formats.detection import NUM_PROBED_ROWS, choose_format
from loralab.data.formats.registry import FORMATS, Format, check_format
from loralab.data.intake import INVALID, NO_ANSWER, UNREADABLE, RawRow
from loralab.data.source import Source, list_sources
from loralab.data.sources import Row, expand_paths, is_hub, read_hub, read_rows
from loralab.data.tally import SHOWN_EXAMPLES, RemovedRow, Tally, shorten
from loralab.errors import DataError

NAMED_FIELDS = 12
FIELD_CHARS = 40
SEE_ALL = "`loralab data validate` lists every fault of the rows."
PREFERENCE_FORMS = ("preference", "sharegpt_preference", "unpaired")


class MisfitError(DataError):
    """No single form fits the first rows of a source."""


def open_source(
    source: Source, on_error: str = "raise", limit: int | None = None
) -> tuple[Format | None, Iterator[RawRow]]:
    """Finds the form of a source's rows from the first of them and returns both.

    The form is None where a prompt template builds the turns, or where no row can be read.

    Args:
        source: Where the rows come from.
        on_error: With `skip`, the form of most of the first rows is taken where they differ.
        limit: Most rows that are read, also to find the form; None reads all.

    Raises:
        MisfitError: No single form fits.
        DataError: A file cannot be read.
    """
    check_format(source.form)
    rows = islice(_raw_rows(source), limit)
    first: list[RawRow] = []
    if source.prompt_template.user is not None:
        return None, rows
    whole: list[Row] = []
    for file, row in rows:
        first.append((file, row))
        if isinstance(row, Row):
            whole.append(row)
        if len(whole) == NUM_PROBED_ROWS:
            break
    if not whole:
        return None, iter(first)
    try:
        form = choose_format(whole, source.form, source.columns)
    except DataError as error:
        common = _most_common_form(whole, source) if on_error == "skip" else None
        if common is None:
            raise _explain_misfit(source, first, error, on_error) from None
        form = common
    return form, chain(first, rows)


def check_forms(config: DataConfig) -> None:
    """Looks whether the first rows of every local file can be trained on, before anything large is imported.

    Raises:
        DataError: No form fits, a mapped column is not there, or the rows hold no answers; one message for
            all sources.
    """
    faults = []
    for source in list_sources(config):
        if is_hub(source.path):
            continue
        try:
            form, _ = open_source(source, config.on_error, first_rows(source, config))
            check_purpose(source, form, config.preference)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n  ".join(faults))


def first_rows(source: Source, config: DataConfig) -> int | None:
    """Most rows that are read of a source; None reads all."""
    return config.max_examples if source.part == "train" else None


def _explain_misfit(source: Source, rows: Sequence[RawRow], error: DataError, on_error: str) -> DataError:
    """Names the file that the first row without a form stands in, and why it has none.

    A row before it that cannot be read is named instead, unless such rows are to be skipped: the rows after
    it may lack a form for no other reason.
    """
    seen: list[Row] = []
    for file, row in rows:
        if not isinstance(row, Row):
            if on_error == "skip":
                continue
            return DataError(f"{source.key}={file!r} {row.place}: {row.reason.rstrip('.')}. {SEE_ALL}")
        seen.append(row)
        try:
            choose_format(seen, source.form, source.columns)
        except DataError as earlier:
            # Rows that fit two forms may be told apart by a later one, but not where that is to be skipped.
            if on_error == "skip" or "forms fit" not in str(earlier):
                return MisfitError(shorten(f"{source.key}={file!r}: {earlier}"))
    return MisfitError(shorten(f"{source.key}={source.path!r}: {error}"))


def _most_common_form(rows: Sequence[Row], source: Source) -> Format | None:
    """The form of most rows, where the others are to be skipped; None where no form has so many."""
    found: Counter[str] = Counter()
    for row in rows:
        with contextlib.suppress(DataError):
            found[choose_format([row], source.form, source.columns).name] += 1
    name, count = found.most_common(1)[0] if found else ("", 0)
    return FORMATS[name] if 2 * count >= len(rows) else None


def check_purpose(source: Source, form: Format | None, preference: str | None) -> None:
    """Refuses rows of a form that has no answers to learn.

    Raises:
        DataError: The rows are prompts alone, or preferences without `data.preference`.
    """
    if form is None:
        return
    if form.name == "prompts":
        raise DataError(
            f"{source.key}={source.path!r}: no assistant turns: nothing to train on. Give rows with answers, "
            "or map the answers with data.columns.response=<field>."
        )
    if form.name in PREFERENCE_FORMS and preference is None:
        raise DataError(
            f"{source.key}={source.path!r}: the rows are preferences ({form.expects}), and objective=sft "
            "learns answers. Learn the preferred ones with data.preference=chosen."
        )


def explain_form(
    source: Source, form: Format | None, rows: Iterator[RawRow]
) -> tuple[str, str, Iterator[RawRow]]:
    """Returns the name of the form of a source's rows, why it is that one, and all of the rows.

    Args:
        source: Where the rows come from.
        form: What `open_source` found.
        rows: Every row, of which the first are read.
    """
    first = list(islice(rows, NUM_PROBED_ROWS))
    fields = next((row.fields for _, row in first if isinstance(row, Row)), {})
    names = [name if len(name) <= FIELD_CHARS else f"{name[:FIELD_CHARS]}…" for name in map(str, fields)]
    more = f" and {len(names) - NAMED_FIELDS} more" if len(names) > NAMED_FIELDS else ""
    seen = f"; fields of the first row: {', '.join(names[:NAMED_FIELDS])}{more}" if names else ""
    mapped = ", ".join(f"data.columns.{name}={column}" for name, column in source.columns.items())
    if form is None and source.prompt_template.user is None:
        name, reason = "none", "no row can be read"
    elif form is None:
        name, reason = "prompt_template", "data.prompt_template builds the turns"
    elif source.form != "auto":
        name, reason = form.name, "as given"
    else:
        name, reason = form.name, f"found: {form.evidence}"
    return name, f"{reason}{f'; {mapped}' if mapped else ''}{seen}", chain(first, rows)


def refuse_faults(source: Source, tally: Tally, on_error: str) -> None:
    """Refuses a source with rows that cannot be used, unless they are to be skipped.

    Args:
        source: Where the rows come from.
        tally: What became of them.
        on_error: `data.on_error`.

    Raises:
        DataError: There are such rows; all in one message.
    """
    faults = [tally.removed[check] for check in (UNREADABLE, INVALID) if check in tally.removed]
    count = sum(each.count for each in faults)
    if not count or (on_error == "skip" and count < tally.rows):
        return
    rows = sorted((row for each in faults for row in each.examples), key=lambda row: row.order)
    if count == tally.rows and all(row.reason == NO_ANSWER for row in rows):
        raise DataError(
            f"{source.key}={source.path!r}: no assistant turns: nothing to train on. Give rows with answers, "
            "or map the answers with data.columns.response=<field>."
        )
    if count == 1:
        raise DataError(f"{source.key}={rows[0].file!r} {rows[0].place}: {rows[0].reason}")
    files = {row.file for row in rows}
    where = f"{source.key}={rows[0].file!r}" if len(files) == 1 else f"{source.key}={source.path!r}"
    shown = "; ".join(_list_alike(rows[:SHOWN_EXAMPLES], with_files=len(files) > 1))
    rest = f"; and {count - len(rows[:SHOWN_EXAMPLES])} more" if count > SHOWN_EXAMPLES else ""
    raise DataError(f"{where}: {count} of {tally.rows} rows cannot be used: {shown}{rest}")


def _list_alike(rows: Sequence[RemovedRow], with_files: bool) -> Iterator[str]:
    """Yields each reason with the rows of a file that are left out for it."""
    alike: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        alike.setdefault((row.file, row.reason.rstrip(".")), []).append(row.place)
    for (file, reason), (first, *others) in alike.items():
        also = f" (also {', '.join(others)})" if others else ""
        yield f"{f'{file} ' if with_files else ''}{first}: {reason}{also}"


def _raw_rows(source: Source) -> Iterator[RawRow]:
    if is_hub(source.path):
        name = source.path.partition(":")[2]
        for row in read_hub(name, source.subset, source.split, source.revision, source.key):
            yield source.path, row
        return
    for path in source_files(source):
        for row in read_rows(path, source.key, source.encoding):
            yield str(path), row


def source_files(source: Source) -> list[Path]:
    """The files of a source; none for a dataset of the Hub."""
    return [] if is_hub(source.path) else expand_paths(source.path, source.key)
