import os
import signal
from collections.abc import Iterator

import pytest
import torch

from loralab.data.workers import chunked, explain_dead_worker, map_chunks
from loralab.errors import DataError


def double(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]


def whose(numbers: list[int]) -> int:
    return os.getpid()


@pytest.mark.parametrize("num_workers", [None, 0, 1, 2, 3])
def test_results_come_in_the_order_of_the_chunks(num_workers: int | None) -> None:
    chunks = list(chunked(range(500), 7))
    found = [number for result in map_chunks(double, chunks, num_workers) for number in result]
    assert found == [2 * number for number in range(500)]


def test_nothing_gives_nothing() -> None:
    assert list(map_chunks(double, [], None)) == []
    assert list(map_chunks(double, [], 2)) == []


def test_few_chunks_start_no_process() -> None:
    assert set(map_chunks(whose, [[1]] * 2, None)) == {os.getpid()}
    assert os.getpid() not in set(map_chunks(whose, [[1]] * 8, 2))


def test_chunks_are_read_as_they_are_needed() -> None:
    read = []

    def stream():
        for number in range(1000):
            read.append(number)
            yield [number]

    results = map_chunks(double, stream(), 2)
    assert next(results) == [0]
    # Two chunks ahead for each of two workers, and the one that was asked for.
    assert len(read) < 10


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    assert len(list(map_chunks(double, [[1]] * 20, 2))) == 20
    assert torch.equal(torch.get_rng_state(), before)


def die_at_five(numbers: list[int]) -> list[int]:
    if 5 in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    return numbers


def test_a_killed_worker_ends_in_a_short_message() -> None:
    results = map_chunks(die_at_five, [[number] for number in range(40)], 2)
    with pytest.raises(
        DataError, match=r"worker process .* lost \(.*\).*Nothing was written.*data.num_workers=1"
    ):
        list(results)


def test_a_death_that_is_noticed_elsewhere_is_explained_too() -> None:
    text = "DataLoader worker (pid 7) is killed by signal: Killed. "
    with pytest.raises(DataError, match=r"killed by signal: Killed\).*fewer than 4"), explain_dead_worker(4):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="other"), explain_dead_worker(4):
        raise RuntimeError("other")


def test_stream_is_cut_into_lists() -> None:
    assert list(chunked(range(5), 2)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("count", "expected"), [(5, [[0, 1], [2, 3], [4]]), (4, [[0, 1], [2, 3]])])
def test_a_stream_that_breaks_off_gives_all_before_it(count: int, expected: list[list[int]]) -> None:
    def stream() -> Iterator[int]:
        yield from range(count)
        raise DataError("cut off")

    got: list[list[int]] = []
    with pytest.raises(DataError, match="cut off"):
        got.extend(chunked(stream(), 2))
    assert got == expected
