"""What counts as an explosion, and what is done about it, step by step."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest

from loralab.config.callbacks import StabilityConfig
from loralab.modules.guard import RATE_LOWERED, SKIPPED, Guard, spike_limit

ASSETS = Path(__file__).parents[2] / "assets"
QUICK = StabilityConfig(window=8, warmup=4, spikes=2, lr_steps=3, return_steps=4, max_interventions=9)


def kinds(guard: Guard, step: int, loss: float, norm: float = 1.0) -> list[str]:
    return [incident.kind for incident in guard.judge(step, loss, norm)]


def warmed_up(config: StabilityConfig = QUICK) -> Guard:
    guard = Guard(config)
    for step in range(6):
        assert kinds(guard, step, 2.0 + 0.1 * (step % 2)) == []
    return guard


def test_limit_is_a_multiple_of_the_median_where_values_are_steady() -> None:
    assert spike_limit([2.0, 2.0, 2.0], factor=6, sigmas=8) == pytest.approx(12.0)


def test_limit_widens_with_the_spread_of_the_logarithms() -> None:
    # Logarithms -1, 0, 1: median 0, median absolute deviation 1.
    values = [math.exp(-1), 1.0, math.e]
    assert spike_limit(values, factor=6, sigmas=2) == pytest.approx(math.exp(2 * 1.4826))


def test_one_outlier_does_not_move_the_limit() -> None:
    assert spike_limit([2.0, 2.0, 2.0, 2.0, 500.0], 6, 8) == pytest.approx(12.0)


def test_limit_of_zeros_is_finite() -> None:
    assert 0 < spike_limit([0.0, 0.0, 3.0], 6, 8) < math.inf


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (math.nan, math.nan)])
def test_numbers_that_are_not_finite_are_left_out_from_the_first_step(loss: float, norm: float) -> None:
    guard = Guard(QUICK)
    (incident,) = guard.judge(0, loss, norm)
    assert (incident.kind, incident.step) == (SKIPPED, 1)
    assert "not finite" in incident.cause
    assert guard.healthy == []


def test_spikes_are_looked_for_after_the_warmup_alone() -> None:
    guard = Guard(QUICK)
    for step, loss in enumerate([0.1, 2.0, 40.0, 2.0]):
        assert kinds(guard, step, loss) == []


def test_a_tenfold_loss_or_norm_is_a_spike_and_no_part_of_the_statistics() -> None:
    for loss, norm, name in ((20.0, 1.0, "loss 20 above"), (2.0, 10.0, "gradient norm 10 above 6, median 1")):
        guard = warmed_up()
        before = copy.deepcopy(guard.healthy)
        (incident,) = guard.judge(6, loss, norm)
        assert incident.kind == SKIPPED
        assert incident.cause.startswith(name)
        assert guard.healthy == before
    assert kinds(warmed_up(), 6, 11.0, 5.9) == []


def test_repeated_spikes_lower_the_rate_for_a_while() -> None:
    guard = warmed_up()
    assert kinds(guard, 6, 20.0) == [SKIPPED]
    assert guard.lr_factor(7) == 1.0
    assert kinds(guard, 7, 20.0) == [SKIPPED, RATE_LOWERED]
    assert [guard.lr_factor(step) for step in (8, 9, 10, 11)] == [0.5, 0.5, 0.5, 1.0]


def test_spikes_far_apart_do_not_add_up() -> None:
    guard = warmed_up()
    assert kinds(guard, 6, 20.0) == [SKIPPED]
    for step in range(7, 14):
        guard.judge(step, 2.0, 1.0)
        guard.rollback_due(step)
    assert kinds(guard, 14, 20.0) == [SKIPPED]


@pytest.mark.parametrize(("lr_steps", "lowered_again"), [(6, True), (12, False)])
def test_spikes_while_the_rate_is_low_count_for_a_window_alone(lr_steps: int, lowered_again: bool) -> None:
    guard = warmed_up(StabilityConfig(window=8, warmup=4, spikes=2, lr_steps=lr_steps, return_steps=99))
    # The rate is lowered by the spikes of steps 6 and 7; those of 9 and 10 are in the window until step 16.
    found = [kinds(guard, step, 20.0 if step in (6, 7, 9, 10) else 2.0) for step in range(6, 24)]
    lowered = [step for step, each in enumerate(found, start=6) if RATE_LOWERED in each]
    assert lowered == ([7, 14] if lowered_again else [7])


def test_loss_that_returns_needs_no_rollback() -> None:
    guard = warmed_up()
    due = []
    for step, loss in enumerate([20.0, 2.2, 2.0, 2.0, 2.0], start=6):  # 2.2 is above the window's highest
        guard.judge(step, loss, 1.0)
        due.append(guard.rollback_due(step))
    assert due == [None] * 5
    assert guard.episode is None


def test_loss_that_stays_up_asks_for_the_checkpoint_before_the_spike() -> None:
    guard = warmed_up()
    due = []
    for step, loss in enumerate([20.0, 4.0, 4.0, 2.0, 4.0], start=6):  # high, yet no spikes of their own
        guard.judge(step, loss, 1.0)
        due.append(guard.rollback_due(step))
    assert due == [None, None, None, None, 6]
    incident = guard.rolled_back(10, to=4)
    assert incident.step == 11
    assert "step 4 again" in incident.cause
    assert [each[0] for each in guard.healthy] == [2, 3]  # of the eight latest steps
    assert guard.lr_factor(11) == 0.5


def test_interventions_add_up_and_grow_old() -> None:
    guard = warmed_up(StabilityConfig(window=8, warmup=4, spikes=9, max_interventions=2))
    guard.judge(6, math.nan, 1.0)
    assert not guard.is_spent()
    guard.judge(1200, math.nan, 1.0)
    assert not guard.is_spent()
    guard.judge(1201, math.nan, 1.0)
    assert guard.is_spent()


def test_a_guard_that_is_switched_off_lets_everything_pass() -> None:
    guard = Guard(StabilityConfig(enabled=False))
    assert guard.judge(0, math.nan, math.nan) == []


def test_a_restored_guard_decides_as_the_one_that_was_saved() -> None:
    losses = [2.0, 2.1, 2.0, 20.0, 4.0, 30.0, 4.0, 4.0, 4.0, math.nan, 2.0, 4.0]
    guard = warmed_up()
    restored = Guard(QUICK)
    for step, loss in enumerate(losses, start=6):
        if step == 11:
            restored.load_state_dict(copy.deepcopy(guard.state_dict()))
        decided = guard.judge(step, loss, 1.0), guard.rollback_due(step), guard.lr_factor(step + 1)
        if step >= 11:
            again = restored.judge(step, loss, 1.0), restored.rollback_due(step), restored.lr_factor(step + 1)
            assert again == decided


@pytest.mark.parametrize("first", [0, 40, 80])
@pytest.mark.parametrize(("file", "num_steps"), [("healthy_steps.json", 150), ("healthy_gsm8k.json", 90)])
def test_recorded_steps_are_healthy_wherever_the_guard_begins(file: str, num_steps: int, first: int) -> None:
    """Loss and gradient norm of steps of the embedded task, and of four rows of GSM8K each."""
    guard = Guard(StabilityConfig())
    steps = json.loads((ASSETS / file).read_text())[first:]
    found = [i for step, (loss, norm) in enumerate(steps) for i in guard.judge(step, loss, norm)]
    assert found == []
    assert len(steps) == num_steps - first


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [0.15, 0.5, 1.0])
def test_heavy_tails_are_healthy(seed: int, spread: float) -> None:
    """A loss that falls from 2.5 to its floor, and norms with the tails of Student's t with 5 degrees."""
    generator = np.random.default_rng(seed)
    steps = np.arange(1500)
    falling = 0.3 + 2.2 * np.exp(-steps / 100)
    losses = falling * np.exp(0.5 * spread * generator.standard_normal(len(steps)))
    norms = np.exp(spread * generator.standard_t(5, len(steps)).clip(-6, 6))
    guard = Guard(StabilityConfig())
    found = [i for s in steps for i in guard.judge(int(s), float(losses[s]), float(norms[s]))]
    assert found == []
