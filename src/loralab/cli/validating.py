"""`loralab data validate`: every fault of the rows, with the file and the lines that have it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from loralab.cli.chunks import work_through
from loralab.cli.gathering import make_intake, open_one
from loralab.cli.request import Request
from loralab.cli.tables import make_console, plural, say
from loralab.data.intake import INVALID, UNREADABLE, Intake, RawRow
from loralab.data.tally import SHOWN_EXAMPLES, RemovedRow
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


@dataclass
class Fault:
    """What is wrong with some rows of a file."""

    rows: int = 0
    """Rows that have it."""
    places: list[str] = field(default_factory=list)
    """The first of them."""


class Faults:
    """The faults of a source, the same one of several rows taken together."""

    def __init__(self) -> None:
        """Starts with none."""
        self.rows = 0
        self._found: dict[tuple[str, str], Fault] = {}

    def add(self, removed: Iterable[tuple[str, RemovedRow]]) -> None:
        """Adds rows that are left out, each with the check that does it."""
        for check, row in removed:
            what = "" if check in (UNREADABLE, INVALID) else f"{check}: "
            fault = self._found.setdefault((row.file, f"{what}{row.reason}"), Fault())
            fault.rows += 1
            self.rows += 1
            if len(fault.places) < SHOWN_EXAMPLES:
                fault.places.append(row.place)

    def __len__(self) -> int:
        """How many different faults there are."""
        return len(self._found)

    def lines(self) -> Iterator[str]:
        """Yields a line for each fault, in the order in which they were found."""
        for (file, reason), fault in self._found.items():
            more = f" and {fault.rows - len(fault.places):,} more" if fault.rows > len(fault.places) else ""
            count = f" ({fault.rows:,} rows)" if fault.rows > 1 else ""
            yield f"{file} {', '.join(fault.places)}{more}: {reason}{count}"


def run_validate(request: Request, limit: int) -> int:
    """Prints the faults of all rows and files, and returns how many rows and files have one.

    Args:
        request: The rows and the checks.
        limit: Most different faults that are printed.
    """
    console, num_faulty, num_different = make_console(), 0, 0
    for source in request.sources:
        form, num_rows, faults, breaks_off = "", 0, Faults(), ""
        try:
            opened = open_one(source, request.config.max_examples, "skip")
            form = f" ({opened.form_name})"
            validator = Validator(make_intake(opened, request.config, must_answer=True))
            for count, removed in work_through(validator, opened.rows, request.config.num_workers):
                num_rows += count
                faults.add(removed)
        except DataError as error:
            breaks_off = str(error)
        for line in islice(faults.lines(), max(0, limit - num_different)):
            say(console, line)
        if breaks_off:
            say(console, breaks_off)
        name = f"{source.path}: " if len(request.sources) > 1 else ""
        if faults.rows or breaks_off:
            parts = f"{num_rows - faults.rows:,} valid + {faults.rows:,} with faults"
            ending = "; the rest cannot be read" if breaks_off else ""
            read = f"{plural(num_rows, 'row')} = {parts}{form}{ending}" if num_rows else "no row was read"
            say(console, f"{name}{read}")
        else:
            say(console, f"{name}{plural(num_rows, 'row')}, all valid{form}")
        num_faulty += faults.rows + bool(breaks_off)
        num_different += len(faults)
    if num_different > limit:
        more = plural(num_different - limit, "more different fault")
        say(console, f"{more} not shown: use --limit {num_different}")
    return num_faulty
