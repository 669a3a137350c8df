"""Chunks of rows where the rows break off."""

from collections.abc import Iterator

import pytest

from loralab.cli.chunks import CHUNK, work_through
from loralab.data.intake import RawRow
from loralab.data.sources import Row
from loralab.errors import DataError


def broken(num_rows: int) -> Iterator[RawRow]:
    for line in range(1, num_rows + 1):
        yield "rows.jsonl", Row(line, {})
    raise DataError("the file breaks off")


@pytest.mark.parametrize("num_workers", [None, 0, 2])
def test_every_row_before_the_break_is_worked_on(num_workers: int | None) -> None:
    done: list[int] = []
    with pytest.raises(DataError, match="the file breaks off"):
        for count in work_through(len, broken(CHUNK + 41), num_workers):
            done.append(count)
    assert done == [CHUNK, 41]
