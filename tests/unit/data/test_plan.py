"""The order of a run, against numbers worked out by hand and against simulation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.plan import StepPlan


def make_plan(
    num_rows: int = 10,
    rows_per_step: int = 4,
    epochs: float = 1.0,
    max_steps: int | None = None,
    val_every: float = 1,
    seed: int = 0,
) -> StepPlan:
    return StepPlan(num_rows, rows_per_step, epochs, max_steps, val_every, seed)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(0, 2**32))
def test_each_epoch_covers_every_row_once(num_rows: int, per_step: int, epoch: int, seed: int) -> None:
    plan = make_plan(num_rows, per_step, seed=seed)
    first = epoch * plan.steps_per_epoch
    rows = [row for step in range(first, first + plan.steps_per_epoch) for row in plan.rows(step)]
    assert sorted(rows) == list(range(num_rows))


def test_last_step_of_an_epoch_is_short() -> None:
    plan = make_plan(num_rows=10, rows_per_step=4)
    assert [len(plan.rows(step)) for step in range(6)] == [4, 4, 2, 4, 4, 2]


def test_step_holds_no_more_than_there_are_examples() -> None:
    plan = make_plan(num_rows=3, rows_per_step=8)
    assert plan.steps_per_epoch == 1
    assert sorted(plan.rows(0)) == [0, 1, 2]


def test_rows_depend_on_nothing_but_the_arguments() -> None:
    steps = [5, 0, 2, 5]
    one, other = make_plan(seed=3), make_plan(seed=3, epochs=9, max_steps=7, val_every=2)
    assert [one.rows(step) for step in steps] == [other.rows(step) for step in steps]
    assert one.rows(5) == one.rows(5)


def test_epochs_have_different_orders() -> None:
    plan = make_plan(num_rows=50, rows_per_step=50)
    assert len({tuple(plan.rows(epoch)) for epoch in range(5)}) == 5


def test_seeds_have_different_orders() -> None:
    orders = {tuple(make_plan(50, 50, seed=seed).rows(epoch)) for seed in range(5) for epoch in range(3)}
    assert len(orders) == 15


def test_rows_are_shuffled() -> None:
    rows = make_plan(num_rows=100, rows_per_step=100).rows(0)
    assert rows != sorted(rows)


@pytest.mark.parametrize(
    ("num_rows", "per_step", "epochs", "max_steps", "expected"),
    [
        (10, 4, 1.0, None, 3),
        (12, 4, 1.0, None, 3),
        (13, 4, 1.0, None, 4),
        (10, 4, 2.0, None, 6),
        (10, 4, 0.5, None, 2),  # 1.5 steps
        (10, 4, 1.1, None, 4),  # 3.3 steps
        (10, 4, 0.01, None, 1),
        (10, 4, 2.0, 5, 5),
        (10, 4, 1.0, 100, 100),
        (50, 1, 1.1, None, 55),  # 55.00000000000001 in floating point
        (800, 8, 3.0, None, 300),
    ],
)
def test_total_steps(
    num_rows: int, per_step: int, epochs: float, max_steps: int | None, expected: int
) -> None:
    assert make_plan(num_rows, per_step, epochs, max_steps).total_steps == expected


@pytest.mark.parametrize(
    ("val_every", "max_steps", "expected"),
    [
        (0.25, None, 25),
        (0.5, None, 50),
        (0.001, None, 1),
        (1, None, 1),
        (30, None, 30),
        (1000, None, 100),  # never more than the run has
        (0.25, 10, 10),
        (0.25, 300, 25),  # a share is of an epoch, not of the run
    ],
)
def test_val_interval(val_every: float, max_steps: int | None, expected: int) -> None:
    plan = make_plan(num_rows=800, rows_per_step=8, max_steps=max_steps, val_every=val_every)
    assert plan.val_interval == expected


def test_validations_of_ten_steps_every_four() -> None:
    plan = make_plan(max_steps=10, val_every=4)
    assert [plan.next_validation(step) for step in range(10)] == [4] * 4 + [8] * 4 + [10] * 2
    assert [plan.num_validations(step) for step in range(11)] == [3] * 4 + [2] * 4 + [1] * 2 + [0]


def test_validations_that_divide_the_run_do_not_validate_twice_at_its_end() -> None:
    plan = make_plan(max_steps=8, val_every=4)
    assert [plan.next_validation(step) for step in range(8)] == [4] * 4 + [8] * 4
    assert [plan.num_validations(step) for step in range(9)] == [2] * 4 + [1] * 4 + [0]


@given(st.integers(1, 60), st.one_of(st.integers(1, 70), st.floats(0.01, 0.99)), st.integers(1, 60))
def test_validations_agree_with_walking_through_the_run(
    num_rows: int, val_every: float, max_steps: int
) -> None:
    plan = make_plan(num_rows, 4, max_steps=max_steps, val_every=val_every)
    due = [
        step for step in range(1, max_steps + 1) if step % plan.val_interval == 0 or step == plan.total_steps
    ]
    for step in range(max_steps):
        later = [validation for validation in due if validation > step]
        assert plan.next_validation(step) == later[0]
        assert plan.num_validations(step) == len(later)
    assert plan.num_validations(max_steps) == 0


def test_epoch_at_counts_passes() -> None:
    plan = make_plan(num_rows=10, rows_per_step=4)
    assert [plan.epoch_at(step) for step in (0, 3, 9)] == [0, 1, 3]
    assert math.isclose(plan.epoch_at(4), 4 / 3)
