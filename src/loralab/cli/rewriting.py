"""Raw rows written again as they are: those that stay, to one file or dealt to several."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loralab.cli.gathering import Gathered, Opened, gather, make_intake, nothing_left, open_one, refuse_faults
from loralab.cli.request import Request
from loralab.data.dedup import content_key
from loralab.data.holdout import hold_out
from loralab.data.source import PARTS
from loralab.data.sources import Row, read_rows
from loralab.data.writing import RowWriter, UnwritableError
from loralab.errors import ConfigError, DataError


@dataclass(frozen=True)
class Rewritten:
    """What was written."""

    rows: dict[str, int]
    """Rows of each file, by the name of its part."""
    shared: dict[tuple[str, str], int]
    """Contents that stand in both of two files; found by reading the files again."""


def gather_raw(opened: Sequence[Opened], request: Request, folder: Path) -> Gathered:
    """Takes in rows that are to be written again as they are.

    Raises:
        ConfigError: The options would change rows.
        DataError: The sources differ in form, a row cannot be used, or none is left.
    """
    if request.config.privacy.action == "mask":
        raise ConfigError("privacy.action=mask changes rows: use it with `loralab data convert`, or drop.")
    first = opened[0]
    for other in opened[1:]:
        if other.form_name != first.form_name:
            raise DataError(
                f"the rows differ in form: {first.source.path} is {first.form_name}, {other.source.path} is "
                f"{other.form_name}. Bring them into one form with `loralab data convert`."
            )
    gathered = gather(opened, request.config, folder, must_answer=False)
    refuse_faults(gathered.tallies, request.config.on_error)
    if not len(gathered.alive):
        raise nothing_left(gathered.tallies)
    return gathered


def split(
    opened: Sequence[Opened],
    request: Request,
    gathered: Gathered,
    seed: int,
    targets: Mapping[str, Path],
    overwrite: bool,
) -> Rewritten:
    """Deals the rows that stay to the files of train, val and test.

    Args:
        opened: The sources.
        request: The options; `data.split` says how.
        gathered: Their rows.
        seed: Same seed, same split.
        targets: The file of each part.
        overwrite: Replace files that are there.

    Raises:
        DataError: There are too few rows, or a file cannot be written or cannot hold its rows.
    """
    none = np.zeros(0, np.int64)
    names = [each.source.name for each in opened]
    given = {"train": gathered.alive, "val": none, "test": none}
    parts = hold_out(gathered.corpus, given, request.config, names, seed)
    files = {part: (targets[part], parts[part]) for part in PARTS}
    return _write(opened, request, gathered, files, overwrite)


def keep(
    opened: Sequence[Opened], request: Request, gathered: Gathered, target: Path, overwrite: bool
) -> Rewritten:
    """Writes the rows that stay to one file.

    Raises:
        DataError: The file cannot be written or cannot hold the rows.
    """
    return _write(opened, request, gathered, {"kept": (target, gathered.alive)}, overwrite)


def _write(
    opened: Sequence[Opened],
    request: Request,
    gathered: Gathered,
    targets: Mapping[str, tuple[Path, NDArray[np.int64]]],
    overwrite: bool,
) -> Rewritten:
    part_of = np.full(len(gathered.corpus), -1, np.int8)
    for number, (_, rows) in enumerate(targets.values()):
        part_of[rows] = number
    keys = gathered.corpus.keys()
    found: dict[str, set[bytes]] = {}
    with ExitStack() as stack:
        writers = [stack.enter_context(RowWriter(path, overwrite)) for path, _ in targets.values()]
        _route(request, gathered, part_of, writers)
        for number, part in enumerate(targets):
            expected = [keys[row] for row in np.flatnonzero(part_of == number)]
            found[part] = _read_back(opened[0], request, writers[number], expected)
    names = list(targets)
    shared = {
        (one, other): len(found[one] & found[other])
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    }
    return Rewritten({name: w.num_rows for name, w in zip(names, writers, strict=True)}, shared)


def _route(
    request: Request, gathered: Gathered, part_of: NDArray[np.int8], writers: Sequence[RowWriter]
) -> None:
    """Reads the sources again and writes every row that stays to the file of its part."""
    corpus, number = gathered.corpus, 0
    for place, source in enumerate(request.sources):
        for file, row in open_one(source, request.config.max_examples, request.config.on_error).rows:
            if number == len(corpus) or corpus.sources[number] != place or not isinstance(row, Row):
                continue
            stands = corpus.rows[number], corpus.files[corpus.file_numbers[number]]
            if stands != (row.line, file):
                continue
            if part_of[number] >= 0:
                try:
                    writers[part_of[number]].write(row.fields)
                except UnwritableError:
                    raise
                except DataError as error:
                    raise DataError(f"{file} {row.place}: {error}") from None
            number += 1
    if number != len(corpus):
        raise DataError("the files changed while they were read. Start again.")


def _read_back(opened: Opened, request: Request, writer: RowWriter, expected: Sequence[bytes]) -> set[bytes]:
    """Returns the content hashes of a file, which must be the expected ones in order."""
    intake = make_intake(opened, request.config, must_answer=False)
    file = writer.finish()
    if not expected:
        return set()
    found: list[bytes] = []
    for row in read_rows(file, "OUT", "utf-8"):
        try:
            found.append(content_key(intake.convert(row.fields)) if isinstance(row, Row) else b"")
        except DataError:
            found.append(b"")
        if len(found) > len(expected) or found[-1] != expected[len(found) - 1]:
            break
    if found != expected:
        raise DataError(
            f"row {len(found)} of {str(writer.path)!r} would not read back as the row that it was: this kind "
            "of file cannot hold it. Write .jsonl."
        )
    return set(found)
