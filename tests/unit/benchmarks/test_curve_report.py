"""How curves are judged and laid out."""

import pytest
from curve_report import arithmetic, slowest_to_fastest, table, verdict


def test_the_slowest_point_is_a_share_of_the_fastest_wherever_they_are() -> None:
    points = [{"tokens_per_s": speed} for speed in (80.0, 100.0, 50.0)]

    assert slowest_to_fastest(points, "tokens_per_s") == 0.5


def test_a_frozen_number_is_multiplied_twice_and_a_trained_one_thrice() -> None:
    assert arithmetic({"frozen": 10, "trained": 2}) == 26


@pytest.mark.parametrize(("slowest", "word"), [(90.0, "yes"), (89.0, "no")])
def test_ten_percent_is_the_limit_of_flat(slowest: float, word: str) -> None:
    points = [{"tokens_per_s": speed, "frozen": 1, "trained": 0} for speed in (100.0, slowest)]

    assert verdict("rank", points).startswith(
        f"Slowest to fastest: {slowest / 100:.2f}. Flat within 10%: {word}."
    )


def test_rows_that_are_added_are_timed_without_the_start() -> None:
    points = [
        {"x": 1000, "seconds": 3.0, "rows_per_s": 333.3},
        {"x": 2000, "seconds": 4.0, "rows_per_s": 500.0},
        {"x": 12000, "seconds": 24.0, "rows_per_s": 500.0},
    ]

    # 1000 rows in 1 second more, then 10,000 in 20.
    assert verdict("prepared_rows", points) == (
        "Slowest to fastest: 0.67. Flat within 10%: no. The rows that each line has more than the one "
        "before, without the start: 1,000, 500 rows/s."
    )


def test_a_curve_that_need_not_be_flat_is_not_judged() -> None:
    assert verdict("length", [{"tokens_per_s": 10.0}, {"tokens_per_s": 5.0}]) == "Slowest to fastest: 0.50."


def test_the_rank_is_held_against_its_arithmetic() -> None:
    points = [
        {"tokens_per_s": 100.0, "frozen": 90_000_000, "trained": 0},
        {"tokens_per_s": 80.0, "frozen": 90_000_000, "trained": 20_000_000},
    ]

    # 180 million against 180 + 60.
    assert verdict("rank", points) == (
        "Slowest to fastest: 0.80. Flat within 10%: no. The multiply-adds alone would make 0.75: the largest "
        "adapter has 20.0 million numbers beside 90.0 million frozen ones."
    )


def test_a_table_has_a_row_for_each_point() -> None:
    points = [{"x": 1024, "tokens_per_s": 1234.5, "peak_gib": 1.234, "timed_steps": 2}]

    assert table("length", points)[-3:] == [
        "| sequence length (tokens) | tokens/s | peak memory | timed steps |",
        "|---|---|---|---|",
        "| 1,024 | 1,234 | 1.23 GiB | 2 |",
    ]


def test_preparation_has_no_steps() -> None:
    points = [{"x": 1000, "rows_per_s": 99.6, "peak_gib": 0.5}]

    assert table("prepared_rows", points)[-3:] == [
        "| rows in preparation | rows/s | peak memory |",
        "|---|---|---|",
        "| 1,000 | 100 | 0.50 GiB |",
    ]
