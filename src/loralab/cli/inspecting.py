"""`loralab data inspect`: what rows hold, and what a model would learn of them."""

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from loralab.cli.gathering import Gathered, Opened, gather, open_all
from loralab.cli.profile import make_profile
from loralab.cli.request import Request
from loralab.cli.tables import (
    balance,
    make_console,
    plural,
    print_fields,
    print_findings,
    print_profile,
    print_removed,
    print_source,
    say,
    total,
)
from loralab.data.intake import INVALID, UNREADABLE
from loralab.data.opening import SEE_ALL

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
    # Rows that do not fit are shown among those left out, whatever becomes of them in a run.
    opened = open_all(request, on_error="skip")
    loaded = None
    if tokenizer is not None:
        # It logs while it is imported; no kernel of it is used here.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        from loralab.cli.tokens import open_tokenizer  # here, because it imports torch

        loaded = open_tokenizer(tokenizer, request.config.chat_template)
    console = make_console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gathered = gather(opened, request.config, folder, must_answer=True)
        _print_rows(console, opened, gathered, request)
        if loaded is not None and len(gathered.alive):
            from loralab.cli.token_report import report_tokens

            report_tokens(console, (opened, gathered, request.config), loaded, html, num_examples, folder)


def _print_rows(console: "Console", opened: list[Opened], gathered: Gathered, request: Request) -> None:
    for each, account in zip(opened, gathered.accounts, strict=True):
        print_source(console, each, account.tally)
        print_fields(console, account.fields, account.tally.rows)
    whole = total(gathered.tallies)
    if len(opened) > 1:
        say(console, f"all rows: {balance(whole)}", "bold")
    print_removed(console, whole)
    unusable = sum(whole.removed[check].count for check in (UNREADABLE, INVALID) if check in whole.removed)
    if unusable and request.config.on_error == "raise":
        stop = f"{plural(unusable, 'row')} would stop a run; on_error=skip leaves such rows out."
        say(console, f"{stop} {SEE_ALL}\n", "red")
    print_findings(console, gathered, request.config)
    print_profile(console, make_profile(gathered.corpus, gathered.alive))
