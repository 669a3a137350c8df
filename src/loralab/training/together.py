"""What the processes of a run do about each other: plan alike, leave together, say how to go on."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from loralab.callbacks.interrupts import SIGNALS
from loralab.config.schema import TrainConfig
from loralab.data.cutting import MicroBatchSize
from loralab.distributed.group import agree, broken_exchange, on_first, rank, wait_to_leave
from loralab.errors import ConfigError, Interrupted, ProcessLost
from loralab.model.hardware import dtype_name
from loralab.runs.folder import RunFolder, resume_command
from loralab.training.plan import TrainingPlan, plan_training, with_size
from loralab.training.setup import Setup

SHORT = timedelta(seconds=20)
"""How long an interrupted process waits for the others, within what a launcher grants."""
SHOWN_DIGITS = 16
"""Of a hash: enough to tell files apart."""


def agreed_plan(config: TrainConfig, setup: Setup) -> TrainingPlan:
    """Plans a run; what memory decides is the same in all processes, as the first one finds it.

    Raises:
        ConfigError: The adapter does not suit the model, or a process has other data or another dtype.
    """
    plans: list[TrainingPlan] = []

    def choose() -> tuple[TrainConfig, MicroBatchSize, dict[str, str]]:
        plans.append(plan_training(config, setup))
        return plans[0].config, plans[0].size, facts_of(setup)

    chosen, size, facts = on_first(choose)
    agree(lambda: check_alike(facts, facts_of(setup)))
    return plans[0] if plans else with_size(plan_training(chosen, setup), size)


def facts_of(setup: Setup) -> dict[str, str]:
    """Returns what all processes must have alike, each under what it is called."""
    splits = {"training": setup.data.train, "validation": setup.data.val, "test": setup.data.test}
    return {
        "compute dtype": dtype_name(setup.dtype),
        # The files may lie elsewhere on another machine.
        **{
            f"SHA-256 of data file {number} ({Path(file.path).name})": file.sha256[:SHOWN_DIGITS]
            for number, file in enumerate(setup.data.files, start=1)
        },
        **{
            f"{name} split": f"{split.ledger.examples:,} examples, {split.ledger.tokens:,} tokens"
            for name, split in splits.items()
        },
    }


def check_alike(first: dict[str, str], here: dict[str, str]) -> None:
    """Refuses a process that differs from the first one in `facts_of`.

    Raises:
        ConfigError: It does; the message names the first difference.
    """
    for name in {**first, **here}:
        values = [each.get(name, "absent") for each in (first, here)]
        if values[0] != values[1]:
            raise ConfigError(
                f"process {rank()} (on {socket.gethostname()}) differs from the first one: {name} is "
                f"{values[1]} there and {values[0]} in the first. Give every machine the same command, data "
                "files and trainer.precision."
            )


@contextlib.contextmanager
def leaving_together() -> Iterator[None]:
    """Lets no process end before the first one has written all: whoever starts them would soon end it too."""
    try:
        yield
    except Interrupted:
        # Not for long: a signal outside of training may have come to one process alone.
        _leave(SHORT)
        raise
    _leave()


def _leave(longest: timedelta | None = None) -> None:
    """Waits for the others; a signal that comes meanwhile is for those that still have something to do."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        with contextlib.suppress(ProcessLost):
            wait_to_leave(longest)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def told_how_to_go_on(run: RunFolder) -> Iterator[None]:
    """Adds to the error of a lost process what to type once it is mended."""
    try:
        yield
    except RuntimeError as error:
        # Lightning and the layers of a base that is split exchange things of their own.
        if (lost := broken_exchange(error)) is None:
            raise
        raise ProcessLost(f"{lost}. Continue with: {resume_command(run)}") from error
    except ProcessLost as error:
        raise ProcessLost(f"{error}. Continue with: {resume_command(run)}") from error
