"""Which checkpoint a rollback takes."""

import pytest

from loralab.callbacks.stability import planned_checkpoint
from loralab.config.callbacks import CallbacksConfig


@pytest.mark.parametrize(
    ("step", "every", "expected"), [(23, None, 20), (20, None, 20), (9, None, 0), (23, 7, 21), (9, 4, 8)]
)
def test_only_checkpoints_that_every_run_has_are_gone_back_to(
    step: int, every: int | None, expected: int
) -> None:
    assert planned_checkpoint(step, 10, CallbacksConfig(checkpoint_every=every)) == expected
