import math

import pytest

from loralab.config.schema import ScheduleConfig
from loralab.optim.schedules import DECAYS, lr_factor, warmup_steps


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 0), (0.05, 5), (0.5, 50), (1, 1), (20, 20), (1000, 100)])
def test_warmup_is_a_share_below_one_and_steps_from_one(warmup: float, steps: int) -> None:
    assert warmup_steps(warmup, 100) == steps


@pytest.mark.parametrize("name", DECAYS)
def test_warmup_rises_linearly_to_the_peak(name: str) -> None:
    schedule = ScheduleConfig(name=name, warmup=4)
    assert [lr_factor(step, 100, schedule) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    # The others begin to fall from here on.
    assert (lr_factor(4, 100, schedule) < 1) == (name == "inverse_sqrt")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        # After 2 warm-up steps, 4 steps of decay: shares 0, 1/4, 1/2, 3/4 of the way.
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("cosine", [1.0, 0.8535533906, 0.5, 0.1464466094]),
        ("polynomial", [1.0, 0.5625, 0.25, 0.0625]),  # squares of the linear ones
        ("inverse_sqrt", [0.8164965809, 0.7071067812, 0.6324555320, 0.5773502692]),  # sqrt(2 / 3, 4, 5, 6)
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_decay_by_hand(name: str, values: list[float]) -> None:
    schedule = ScheduleConfig(name=name, warmup=2)
    assert [lr_factor(step, 6, schedule) for step in range(2, 6)] == pytest.approx(values)


@pytest.mark.parametrize("warmup", [1, 4, 16])
def test_inverse_sqrt_is_the_formula_over_its_value_at_the_end_of_the_warmup(warmup: int) -> None:
    # min(n^-0.5, n x warmup^-1.5) at the n-th step, from 1: equation 3 of arXiv:1706.03762.
    schedule = ScheduleConfig(name="inverse_sqrt", warmup=warmup)
    rates = [min(n**-0.5, n * warmup**-1.5) / warmup**-0.5 for n in range(1, 65)]
    assert [lr_factor(step, 64, schedule) for step in range(64)] == pytest.approx(rates)
    assert rates.count(1.0) == 1


def test_inverse_sqrt_without_a_warmup_falls_from_the_first_step() -> None:
    schedule = ScheduleConfig(name="inverse_sqrt", warmup=0)
    assert [lr_factor(step, 9, schedule) for step in (0, 3, 8)] == pytest.approx([1, 1 / 2, 1 / 3])


def test_each_cycle_starts_at_the_peak_and_falls_as_a_whole_cosine() -> None:
    # 9 steps in 3 cycles of 3: shares 0, 1/3, 2/3 of half a cosine, cos 60 = 1/2 and cos 120 = -1/2.
    schedule = ScheduleConfig(name="cosine_restarts", warmup=1, cycles=3)
    assert [lr_factor(step, 10, schedule) for step in range(1, 10)] == pytest.approx([1, 0.75, 0.25] * 3)
    assert lr_factor(10, 10, schedule) == 0


@pytest.mark.parametrize("length", [3, 7, 49, 93, 1000])
def test_a_restart_is_at_the_same_step_however_the_share_rounds(length: int) -> None:
    schedule = ScheduleConfig(name="cosine_restarts", warmup=0, cycles=length)
    assert {lr_factor(step, length, schedule) for step in range(length)} == {1.0}


def test_one_cycle_is_a_cosine() -> None:
    once, cosine = ScheduleConfig(name="cosine_restarts", cycles=1), ScheduleConfig(name="cosine")
    assert [lr_factor(s, 37, once) for s in range(38)] == [lr_factor(s, 37, cosine) for s in range(38)]


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        # 10 steps: 2 of warm-up, then 4 at the peak, the last 4 fall; the first of them is still at the peak.
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, 0.8535533906, 0.5, 0.1464466094]),
        ("sqrt", [1, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)]),
    ],
)
def test_the_rate_is_stable_until_the_last_share(shape: str, values: list[float]) -> None:
    schedule = ScheduleConfig(name="wsd", warmup=2, decay_share=0.4, decay_shape=shape)
    assert [lr_factor(step, 10, schedule) for step in range(2, 10)] == pytest.approx([1] * 4 + values)


def test_a_decay_longer_than_the_run_after_the_warmup_begins_with_it() -> None:
    schedule = ScheduleConfig(name="wsd", warmup=0.5, decay_share=1.0)
    assert [lr_factor(step, 8, schedule) for step in range(4, 8)] == pytest.approx([1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("name", sorted(DECAYS.keys() - {"constant", "inverse_sqrt"}))
def test_floor_is_where_the_decay_ends(name: str) -> None:
    schedule = ScheduleConfig(name=name, warmup=0, floor=0.1)
    assert lr_factor(100, 100, schedule) == pytest.approx(0.1)


def test_floor_scales_what_is_above_it() -> None:
    schedule = ScheduleConfig(name="cosine", warmup=0, floor=0.1)
    assert lr_factor(50, 100, schedule) == pytest.approx(0.55)


@pytest.mark.parametrize("name", DECAYS)
@pytest.mark.parametrize(("total", "warmup"), [(1, 0.05), (1, 1), (2, 5), (3, 0)])
def test_the_shortest_runs_have_a_rate(name: str, total: int, warmup: float) -> None:
    factors = [lr_factor(step, total, ScheduleConfig(name=name, warmup=warmup)) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
