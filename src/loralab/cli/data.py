"""`loralab data`: look at rows, check them, change their form, split them, remove duplicates."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loralab.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from loralab.cli.request import Request

app = typer.Typer(
    help="Look at rows, check them, change their form, split them, remove duplicates. How rows are read and "
    "checked is said as for train.py: format=alpaca columns.prompt=question quality.min_chars=10.",
    no_args_is_help=True,
)

EXIT_FAULTS = 2

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH|KEY=VALUE", help="Files, folders, globs or hub:owner/name; options anywhere."
    ),
]
WordsAndOut = Annotated[
    list[str],
    typer.Argument(metavar="PATH|KEY=VALUE", help="What to read, then the file to write; options anywhere."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there already.")]


@app.command()
def inspect(
    words: Words,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Also show tokens: a folder, a Hub name, or `embedded`."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page, with every token of examples.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Examples shown as the model sees them.")] = 3,
) -> None:
    """Shows what rows hold, what the checks leave out, and with --tokenizer what a model would learn."""
    from loralab.cli.inspecting import run_inspect

    if html is not None and tokenizer is None:
        raise ConfigError("--html shows tokens: name what makes them with --tokenizer.")
    if html is not None and not html.parent.is_dir():
        raise ConfigError(
            f"--html {str(html)!r}: the folder {str(html.parent)!r} does not exist. Make it first."
        )
    command = "inspect" if tokenizer is None else "inspect --tokenizer"
    run_inspect(_read(words, command), tokenizer, html, examples)


@app.command()
def validate(
    words: Words,
    limit: Annotated[int, typer.Option(min=1, help="Most different faults that are printed.")] = 100,
) -> None:
    """Converts and checks every row, and prints each fault with its file and the lines that have it."""
    from loralab.cli.validating import run_validate

    if run_validate(_read(words, "validate"), limit):
        raise typer.Exit(EXIT_FAULTS)


@app.command()
def convert(
    words: WordsAndOut,
    to: Annotated[str, typer.Option("--to", metavar="FORM", help="The form to write, such as openai.")],
    force: Force = False,
) -> None:
    """Writes rows in another form and kind of file, and proves that they read back the same.

    The extension of OUT says the kind: .json, .jsonl, .csv, .tsv, .parquet or .arrow; the text kinds also
    with .gz or .zst.
    """
    from loralab.cli.converting import convert as write_converted
    from loralab.cli.tables import make_console, print_written, total
    from loralab.data.formats.registry import FORMATS

    if to not in FORMATS:
        known = ", ".join(FORMATS)
        raise ConfigError(f"--to {to!r} is unknown.{did_you_mean(to, FORMATS)} Allowed: {known}.")
    request, out = _read_with_out(words, "convert", force)
    tally = total(write_converted(request, FORMATS[to], out, force))
    print_written(make_console(), tally, {to: (tally.kept, out)})


@app.command()
def split(
    words: Words,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for train, val and test.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="jsonl, json, csv, parquet ...")] = "jsonl",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same split.")] = 0,
    force: Force = False,
) -> None:
    """Deals rows to train, val and test files, as they are, by split.method, val_fraction and test_fraction.

    Exact duplicates are left out (dedup.exact=false keeps them), so that none can stand in two files.
    """
    from loralab.cli.gathering import open_all
    from loralab.cli.rewriting import gather_raw
    from loralab.cli.rewriting import split as write_split
    from loralab.cli.tables import make_console, print_shared, print_written, total
    from loralab.data.writing import kind_of

    kind_of(Path(f"rows.{kind.lstrip('.')}"))
    request = _read(words, "split")
    targets = {part: out / f"{part}.{kind.lstrip('.')}" for part in ("train", "val", "test")}
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {str(out)!r} is a file. Give a folder.")
    out.mkdir(parents=True, exist_ok=True)
    _check_targets(request, list(targets.values()), force)
    opened = open_all(request)
    with tempfile.TemporaryDirectory() as folder:
        gathered = gather_raw(opened, request, Path(folder))
        done = write_split(opened, request, gathered, seed, targets, force)
    tally = total(gathered.tallies)
    console = make_console()
    print_written(console, tally, {part: (done.rows[part], targets[part]) for part in targets})
    print_shared(console, done.shared)


@app.command()
def dedup(words: WordsAndOut, force: Force = False) -> None:
    """Writes the rows that stay without exact duplicates, and with dedup.near without near ones.

    dedup.near=prompt compares the turns before the answer, dedup.near=conversation all turns, by the Jaccard
    similarity of their word 5-grams (dedup.threshold).
    """
    from loralab.cli.gathering import open_all
    from loralab.cli.rewriting import gather_raw, keep
    from loralab.cli.tables import make_console, print_written, total

    request, out = _read_with_out(words, "dedup", force)
    opened = open_all(request)
    with tempfile.TemporaryDirectory() as folder:
        gathered = gather_raw(opened, request, Path(folder))
        done = keep(opened, request, gathered, out, force)
    tally = total(gathered.tallies)
    print_written(make_console(), tally, {"kept": (done.rows["kept"], out)})


def _read(words: Sequence[str], command: str) -> "Request":
    from loralab.cli.request import make_request, split_words

    paths, options = split_words(words)
    return _noted(make_request(paths, options, command), command)


def _read_with_out(words: Sequence[str], command: str, force: bool) -> tuple["Request", Path]:
    from loralab.cli.request import make_request, split_words

    paths, options = split_words(words)
    if len(paths) < 2:  # noqa: PLR2004
        raise ConfigError("Give at least one PATH to read, and then OUT, the file to write.")
    request = _noted(make_request(paths[:-1], options, command), command)
    out = Path(paths[-1])
    _check_targets(request, [out], force)
    return request, out


def _noted(request: "Request", command: str) -> "Request":
    for key in request.idle:
        print(f"note: {key} changes nothing in `{command}`", file=sys.stderr)
    return request


def _check_targets(request: "Request", targets: Sequence[Path], force: bool) -> None:
    from loralab.data.opening import source_files
    from loralab.data.writing import check_target

    read = {path.resolve() for source in request.sources for path in source_files(source)}
    for target in targets:
        if target.resolve() in read:
            raise DataError(f"{str(target)!r} is also read. Give another name, or name the files to read.")
        check_target(target, force)
