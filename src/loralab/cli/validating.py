"""`loralab data validate`: every fault of every row, with its file and line."""

from loralab.cli.gathering import make_intake, open_one, work_through
from loralab.cli.request import Request
from loralab.cli.tables import make_console, plural, say
from loralab.data.intake import INVALID, UNREADABLE, Intake, RawRow
from loralab.data.tally import RemovedRow
from loralab.errors import DataError


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
    """Prints the faults of all rows and files, and returns how many there are.

    Args:
        request: The rows and the checks.
        limit: Most faults that are printed.
    """
    console, faulty = make_console(), 0
    for source in request.sources:
        form, num_rows, found = "", 0, 0
        try:
            opened = open_one(source, request.config.max_examples, "skip")
            form = f" ({opened.form_name})"
            validator = Validator(make_intake(opened, request.config, must_answer=True))
            for count, faults in work_through(validator, opened.rows, request.config.num_workers):
                num_rows += count
                for check, row in faults[: max(0, limit - faulty - found)]:
                    what = "" if check in (UNREADABLE, INVALID) else f"{check}: "
                    say(console, f"{row.file} {row.place}: {what}{row.reason}")
                found += len(faults)
        except DataError as error:
            say(console, str(error))
            found, num_broken = found + 1, 1
        else:
            num_broken = 0
        name = f"{source.path}: " if len(request.sources) > 1 else ""
        if found:
            valid = num_rows - found + num_broken
            parts = f"{valid:,} valid + {found - num_broken:,} with faults"
            ending = "; the rest cannot be read" if num_broken else ""
            say(console, f"{name}{plural(num_rows, 'row')} = {parts}{form}{ending}")
        else:
            say(console, f"{name}{plural(num_rows, 'row')}, all valid{form}")
        faulty += found
    if faulty > limit:
        say(console, f"{plural(faulty - limit, 'more fault')} not shown: use --limit {faulty}")
    return faulty
