"""What the processes of a run do about each other: plan alike, leave together, say how to go on."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta

from loralab.config.schema import TrainConfig
from loralab.data.cutting import MicroBatchSize
from loralab.distributed.group import broken_exchange, on_first, wait_for_all
from loralab.errors import Interrupted, ProcessLost
from loralab.runs.folder import RunFolder, resume_command
from loralab.training.plan import TrainingPlan, plan_training, with_size
from loralab.training.setup import Setup

SHORT = timedelta(seconds=20)
"""How long an interrupted process waits for the others, within what a launcher grants."""


def agreed_plan(config: TrainConfig, setup: Setup) -> TrainingPlan:
    """Plans a run; what memory decides is the same in all processes, as the first one finds it."""
    plans: list[TrainingPlan] = []

    def choose() -> tuple[TrainConfig, MicroBatchSize]:
        plans.append(plan_training(config, setup))
        return plans[0].config, plans[0].size

    chosen, size = on_first(choose)
    return plans[0] if plans else with_size(plan_training(chosen, setup), size)


@contextlib.contextmanager
def leaving_together() -> Iterator[None]:
    """Lets no process end before the first one has written all: whoever starts them would soon end it too."""
    try:
        yield
    except Interrupted:
        # Not for long: a signal outside of training may have come to one process alone.
        with contextlib.suppress(ProcessLost):
            wait_for_all(SHORT)
        raise
    with contextlib.suppress(ProcessLost):
        wait_for_all()


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
