"""What processes exchange, in two real ones."""

import json
import sys
from pathlib import Path

import pytest
import torch

from loralab.distributed import group
from loralab.distributed.launch import launch
from loralab.distributed.votes import Votes
from loralab.errors import ProcessLost

TWO = """
import json, sys
import torch
from loralab.distributed import group
from loralab.distributed.votes import Votes
from loralab.errors import AlreadyTold, ConfigError
with group.joined("cpu"):
    me, found = group.rank(), {}
    found["place"] = [group.place().local_rank, group.place().local_world_size]
    gradients = [torch.full((2, 3), me + 1.0), torch.tensor([10.0 * me])]
    group.sum_gradients(gradients)
    found["gradients"] = [each.tolist() for each in gradients]
    found["numbers"] = group.sum_numbers(torch.tensor([me, 1 / 3], dtype=torch.float64)).tolist()
    found["gathered"] = group.gathered(f"of {me}")
    found["first"] = group.on_first(lambda: f"made by {me}")
    order = []
    found["both"] = group.first_then_others(lambda: order.append(me) or me)
    votes = Votes()
    votes.asked = {"stop": lambda: me == 1, "save": lambda: False}
    votes.hold()
    found["votes"] = [votes.passed("stop"), votes.passed("save")]
    def fail():
        raise ConfigError("wrong")
    try:
        group.on_first(fail)
    except (AlreadyTold, ConfigError) as error:
        found["error"] = type(error).__name__
    open(f"{sys.argv[1]}/{me}.json", "w").write(json.dumps(found))
assert group.place().world_size == group.world_size() == 1
"""
FAILS_ALONE = """
from loralab.distributed import group
from loralab.errors import ProcessLost
try:
    with group.joined("cpu"):
        if group.rank() == 1:
            raise RuntimeError("a fault of this process alone")
        group.gathered("waits")
except ProcessLost:
    print("noticed")
"""

LEAVES = """
import signal
from datetime import timedelta
import torch
from loralab.distributed import group
from loralab.errors import ProcessLost
signal.alarm(40)
try:
    with group.joined("cpu"):
        if group.rank() == 0:
            group.sum_numbers(torch.zeros(3))
        else:
            group.wait_to_leave(timedelta(seconds=1))
except ProcessLost:
    print("over")
"""


def test_two_processes_add_up_gather_and_follow_the_first(tmp_path: Path) -> None:
    assert launch([sys.executable, "-c", TWO, str(tmp_path)], 2, {}) == 0
    first, second = (json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1))
    for found in (first, second):
        assert found["gradients"] == [[[3.0] * 3] * 2, [10.0]]
        assert found["numbers"] == [1.0, 2 / 3]
        assert found["gathered"] == ["of 0", "of 1"]
        assert found["first"] == "made by 0"
        assert found["votes"] == [True, False]
    assert (first["both"], second["both"]) == (0, 1)
    assert (first["place"], second["place"]) == ([0, 2], [1, 2])
    assert (first["error"], second["error"]) == ("ConfigError", "AlreadyTold")


def test_a_single_process_exchanges_nothing() -> None:
    numbers = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert group.sum_numbers(numbers).tolist() == [1.0, 2.0]
    assert group.gathered("x") == ["x"]
    assert group.on_first(lambda: 3) == group.first_then_others(lambda: 3) == 3
    assert (group.rank(), group.world_size(), group.is_first()) == (0, 1, True)
    with group.joined("cpu") as place:
        assert place.world_size == 1


def test_a_single_process_answers_when_it_is_asked() -> None:
    votes, wanted = Votes(), [False]
    votes.asked["stop"] = lambda: wanted[0]
    votes.hold()
    assert not votes.passed("stop")
    wanted[0] = True
    assert votes.passed("stop")


def test_a_process_that_fails_alone_waits_for_nobody_and_the_other_notices(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert launch([sys.executable, "-c", FAILS_ALONE], 2, {}) == 1
    out, err = capfd.readouterr()
    assert out == "noticed\n"
    assert err.count("a fault of this process alone") == 1


def test_a_process_that_waits_for_another_that_exchanges_leaves_in_time(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert launch([sys.executable, "-c", LEAVES], 2, {}) == 0
    assert capfd.readouterr().out == "over\n"


def test_memory_that_runs_out_in_an_exchange_is_no_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    full = torch.OutOfMemoryError("NCCL wanted 2 GiB")
    with pytest.raises(torch.OutOfMemoryError), group.noticing_the_lost():
        raise full
    monkeypatch.setattr(group, "world_size", lambda: 2)
    assert group.broken_exchange(full) is None
    assert isinstance(group.broken_exchange(RuntimeError("NCCL error")), ProcessLost)
    assert group.broken_exchange(RuntimeError("shapes do not match")) is None
