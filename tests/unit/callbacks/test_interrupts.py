"""A signal in a validation does not wait for its end."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loralab.callbacks.interrupts import Interrupts, interruptible
from loralab.distributed.votes import Votes
from loralab.errors import Interrupted
from loralab.runs.folder import RunFolder


def test_a_signal_in_a_validation_saves_before_the_next_batch(tmp_path: Path) -> None:
    done: list[str] = []
    checkpoints = SimpleNamespace(run=RunFolder(tmp_path), save=lambda *args: done.append("saved"))
    recorder = SimpleNamespace(flush=lambda *args: done.append("flushed"))
    interrupts: Any = Interrupts(cast(Any, checkpoints), cast(Any, recorder))
    module = SimpleNamespace(finished_steps=8, plan=SimpleNamespace(total_steps=12), votes=Votes())
    before = signal.getsignal(signal.SIGTERM)
    interrupts.on_train_start(None, module)
    interrupts.on_validation_batch_start(None, module, None, 0)
    assert done == []
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(
        Interrupted,
        match=r"SIGTERM at step 8 of 12: checkpoint saved; its validation is repeated. Continue with",
    ) as raised:
        interrupts.on_validation_batch_start(None, module, None, 1)
    assert done == ["flushed", "saved"]
    interrupts.on_exception(None, module, raised.value)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_library_that_reports_a_failure_of_its_own_hides_no_signal(tmp_path: Path) -> None:
    def load() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            raise RuntimeError("weights cannot be converted") from error

    with (
        pytest.raises(Interrupted, match=r"SIGTERM\. Continue with: python train.py resume="),
        interruptible(RunFolder(tmp_path)),
    ):
        load()


def test_other_failures_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), interruptible(RunFolder(tmp_path)):
        raise ValueError("wrong")
