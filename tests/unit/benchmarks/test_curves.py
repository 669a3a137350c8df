"""The cases of the curves and the rows that they train on."""

import json
from pathlib import Path

import pytest
from curves import MOST_TOKENS, Case, plan_curves, write_documents, write_held_out


@pytest.mark.parametrize(
    ("tokens", "steps"), [(256, 4), (512, 4), (1024, 3), (2000, 3), (2048, 2), (4096, 1), (8192, 1)]
)
def test_short_steps_are_timed_more_often(tokens: int, steps: int) -> None:
    assert Case(length=tokens).num_steps == steps


def test_each_curve_varies_one_thing() -> None:
    curves = plan_curves(MOST_TOKENS)

    assert {x: (case.length, case.tokens) for x, case in curves["length"].items()} == {
        256: (256, 256),
        512: (512, 512),
        1024: (1024, 1024),
        2048: (2048, 2048),
        4096: (4096, 4096),
        8192: (8192, 8192),
    }
    assert [case.rank for case in curves["rank"].values()] == [8, 16, 32, 64, 128]
    assert {case.tokens for case in curves["rank"].values()} == {1024}
    assert {x: (case.length, case.rows) for x, case in curves["micro_batch_tokens"].items()} == {
        512: (512, 1),
        1024: (512, 2),
        2048: (512, 4),
        4096: (512, 8),
        8192: (512, 16),
    }
    assert {(case.processes, case.tokens) for case in curves["processes"].values()} == {(1, 1024), (2, 1024)}


def test_curves_share_cases() -> None:
    cases = [case for curve in plan_curves(MOST_TOKENS).values() for case in curve.values()]

    assert (len(cases), len(set(cases))) == (18, 15)


def test_long_steps_are_left_out_on_request() -> None:
    curves = plan_curves(2048)

    assert {name: list(cases) for name, cases in curves.items()} == {
        "length": [256, 512, 1024, 2048],
        "rank": [8, 16, 32, 64, 128],
        "micro_batch_tokens": [512, 1024, 2048],
        "processes": [1, 2],
    }
    assert set(plan_curves(512)) == {"length", "micro_batch_tokens"}


def test_documents_begin_at_different_places_and_are_long_enough(tmp_path: Path) -> None:
    path = write_documents(tmp_path / "rows.jsonl", length=100, count=3)

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [len(row["completion"]) for row in rows] == [500, 500, 500]
    assert len({row["completion"] for row in rows}) == len({row["prompt"] for row in rows}) == 3


def test_held_out_rows_differ(tmp_path: Path) -> None:
    words = write_held_out(tmp_path)

    paths = dict(word.split("=") for word in words)
    assert set(paths) == {"data.val_path", "data.test_path"}
    assert len({Path(path).read_text() for path in paths.values()}) == 2
