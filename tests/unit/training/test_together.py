"""What the processes of a run agree on, and how they wait for each other at the end."""

import signal
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError, Interrupted
from loralab.training import together
from loralab.training.together import agreed_plan, check_alike, facts_of, leaving_together


def setup_of(dtype: torch.dtype = torch.float32, sha256: str = "a" * 64, tokens: int = 70) -> Any:
    split = SimpleNamespace(ledger=SimpleNamespace(examples=1000, tokens=tokens))
    files = [SimpleNamespace(path="/data/rows.jsonl", sha256=sha256)]
    data = SimpleNamespace(train=split, val=split, test=split, files=files)
    return SimpleNamespace(dtype=dtype, data=data)


def test_what_must_be_alike_is_named() -> None:
    assert facts_of(setup_of()) == {
        "compute dtype": "float32",
        "SHA-256 of data file 1 (rows.jsonl)": "a" * 16,
        "training split": "1,000 examples, 70 tokens",
        "validation split": "1,000 examples, 70 tokens",
        "test split": "1,000 examples, 70 tokens",
    }


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (setup_of(torch.bfloat16), "compute dtype is bfloat16 there and float32 in the first"),
        (setup_of(sha256="b" * 64), f"rows.jsonl\\) is {'b' * 16} there and {'a' * 16} in the first"),
        (setup_of(tokens=71), "training split is 1,000 examples, 71 tokens there"),
    ],
    ids=["dtype", "file", "tokens"],
)
def test_a_process_with_other_data_or_another_dtype_is_refused(other: Any, message: str) -> None:
    check_alike(facts_of(setup_of()), facts_of(setup_of()))
    with pytest.raises(ConfigError, match=message):
        check_alike(facts_of(setup_of()), facts_of(other))


def test_processes_are_compared_before_any_of_the_others_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    first = facts_of(setup_of(torch.bfloat16))
    monkeypatch.setattr(together, "on_first", lambda action: (None, None, first))
    monkeypatch.setattr(together, "plan_training", lambda *args: pytest.fail("it plans"))
    with pytest.raises(ConfigError, match="compute dtype is float32 there and bfloat16 in the first"):
        agreed_plan(TrainConfig(), setup_of())


def test_a_signal_does_not_end_a_process_that_waits_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[timedelta | None] = []

    def wait(longest: timedelta | None) -> None:
        waited.append(longest)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.raise_signal(number)

    monkeypatch.setattr(together, "wait_to_leave", wait)
    with leaving_together():
        pass
    with pytest.raises(Interrupted), leaving_together():
        raise Interrupted("SIGTERM")
    assert waited == [None, timedelta(seconds=20)]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
