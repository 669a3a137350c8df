import pytest

from loralab.config.schema import ScheduleConfig
from loralab.optim.schedules import lr_factor, warmup_steps


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 0), (0.05, 5), (0.5, 50), (1, 1), (20, 20), (1000, 100)])
def test_warmup_is_a_share_below_one_and_steps_from_one(warmup: float, steps: int) -> None:
    assert warmup_steps(warmup, 100) == steps


def test_warmup_rises_linearly_to_the_peak() -> None:
    schedule = ScheduleConfig(name="cosine", warmup=4)
    assert [lr_factor(step, 100, schedule) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        # After 2 warm-up steps, 4 steps of decay: shares 0, 1/4, 1/2, 3/4 of the way.
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("cosine", [1.0, 0.8535533906, 0.5, 0.1464466094]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_decay_by_hand(name: str, values: list[float]) -> None:
    schedule = ScheduleConfig(name=name, warmup=2)
    assert [lr_factor(step, 6, schedule) for step in range(2, 6)] == pytest.approx(values)


def test_floor_is_where_the_decay_ends() -> None:
    schedule = ScheduleConfig(name="cosine", warmup=0, floor=0.1)
    assert lr_factor(100, 100, schedule) == pytest.approx(0.1)
    assert lr_factor(50, 100, schedule) == pytest.approx(0.55)
