"""A run must be longer than the warm-up of its profile."""

import pytest

from loralab.config.callbacks import ProfilerConfig
from loralab.config.profiler_rules import check_profiled, short_run_fault
from loralab.errors import ConfigError


@pytest.mark.parametrize(
    ("first", "steps", "is_short"),
    [(5, 5, True), (5, 6, False), (1, 1, True), (0, 1, False), (5, None, False)],
)
def test_a_run_needs_a_step_after_the_warm_up(first: int, steps: int | None, is_short: bool) -> None:
    config = ProfilerConfig(enabled=True, first_step=first)
    assert (short_run_fault(config, steps, "trainer.max_steps=N") is not None) == is_short


def test_without_a_profile_any_length_will_do() -> None:
    assert short_run_fault(ProfilerConfig(), 1, "trainer.max_steps=1") is None


def test_the_length_that_epochs_give_is_checked_as_well() -> None:
    with pytest.raises(ConfigError) as caught:
        check_profiled(ProfilerConfig(enabled=True, first_step=3), 1, "trainer.epochs=0.1")
    assert str(caught.value) == (
        "trainer.epochs=0.1 gives 1 step, and callbacks.profiler.first_step=3 of warm-up come before the "
        "first that is profiled. Use 4 or more steps, or a callbacks.profiler.first_step of at most 0."
    )
