"""`loralab data validate`: every fault of every row, with its file and line."""

from loralab.cli.gathering import make_intake, open_one, work_through
from loralab.cli.request import Request
from loralab.cli.tables import make_console, say
from loralab.data.intake import INVALID, UNREADABLE, Intake, RawRow
from loralab.data.tally import RemovedRow


class Validator:
    """Finds every fault in a chunk of rows."""

    def __init__(self, intake: Intake) -> None:
        """Takes what converts and checks the rows."""
        self.intake = intake

    def __call__(self, rows: list[RawRow]) -> tuple[int, list[tuple[str, RemovedRow]]]:
        """Returns the number of rows, and each that is left out with the check that does it."""
        faults = []
        for raw in rows:
            removed = self.intake([raw]).tally.removed
            faults += [(check, row) for check, removals in removed.items() for row in removals.examples]
        return len(rows), faults


def run_validate(request: Request, limit: int) -> int:
    """Prints the faults of all rows, and returns how many there are.

    Args:
        request: The rows and the checks.
        limit: Most faults that are printed.

    Raises:
        DataError: A file cannot be read, or no single form fits its rows.
    """
    console, faulty = make_console(), 0
    for source in request.sources:
        opened = open_one(source, request.config.max_examples)
        validator = Validator(make_intake(opened, request.config, must_answer=True))
        num_rows, found = 0, 0
        for count, faults in work_through(validator, opened.rows, request.config.num_workers):
            num_rows += count
            for number, (check, row) in enumerate(faults, start=faulty + found + 1):
                if number <= limit:
                    what = "" if check in (UNREADABLE, INVALID) else f"{check}: "
                    say(console, f"{row.file} {row.place}: {what}{row.reason}")
            found += len(faults)
        name = f"{source.path}: " if len(request.sources) > 1 else ""
        if found:
            parts = f"{num_rows - found:,} valid + {found:,} with faults"
            say(console, f"{name}{num_rows:,} rows = {parts} ({opened.form_name})")
        else:
            say(console, f"{name}{num_rows:,} rows, all valid ({opened.form_name})")
        faulty += found
    if faulty > limit:
        say(console, f"{faulty - limit:,} more faults are not shown: --limit {faulty}")
    return faulty
