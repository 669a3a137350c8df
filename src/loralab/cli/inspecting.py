"""`loralab data inspect`: what rows hold, and what a model would learn of them."""

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from loralab.cli.gathering import Gathered, Opened, gather, open_all
from loralab.cli.profile import make_profile
from loralab.cli.request import Request
from loralab.cli.tables import (
    account,
    make_console,
    print_fields,
    print_findings,
    print_profile,
    print_removed,
    print_source,
    say,
    total,
)

if TYPE_CHECKING:
    from rich.console import Console


def run_inspect(request: Request, tokenizer: str | None, html: Path | None, num_examples: int) -> None:
    """Prints everything about the rows.

    Args:
        request: The rows and the checks.
        tokenizer: What makes tokens; None leaves them out.
        html: Page to write.
        num_examples: Examples to print.
    """
    opened = open_all(request)
    console = make_console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gathered = gather(opened, request.config, folder, must_answer=True)
        _print_rows(console, opened, gathered, request)
        if tokenizer is not None and len(gathered.alive):
            # It logs while it is imported; no kernel of it is used here.
            logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
            from loralab.cli.token_report import report_tokens  # here, because it imports torch

            report_tokens(console, (opened, gathered, request.config), tokenizer, html, num_examples, folder)


def _print_rows(console: "Console", opened: list[Opened], gathered: Gathered, request: Request) -> None:
    for each, report, fields in zip(opened, gathered.reports, gathered.fields, strict=True):
        print_source(console, each, report.tally)
        print_fields(console, fields, report.tally.rows)
    whole = total(report.tally for report in gathered.reports)
    if len(opened) > 1:
        say(console, f"all rows: {account(whole)}", "bold")
    print_removed(console, whole)
    print_findings(console, gathered, request.config)
    print_profile(console, make_profile(gathered.corpus, gathered.alive))
