import math
import re
import xml.etree.ElementTree as ET

import matplotlib
import pytest

from loralab.evaluation.plots import (
    PLOTS,
    count_non_finite,
    describe_plot,
    downsample,
    draw_plot,
    finite_points,
    smooth,
    to_float,
)

TRAIN = [
    {
        "step": step,
        "train/loss": 2.0 / step,
        "train/lr": 1e-4,
        "train/grad_norm": 0.8,
        "train/tokens_per_s": 500.0,
        "memory/rss_gib": 1.4,
        "memory/peak_gib": 1.5,
    }
    for step in range(1, 31)
]


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("text")]


def test_finite_points_skip_lines_without_the_metric_and_values_that_cannot_be_drawn():
    values = [1.5, None, math.nan, math.inf, "0.5", True, 10**400, 1e300, 0.5]
    records = [{"step": step, "val/loss": value} for step, value in enumerate(values)]
    records += [{"step": 9, "train/loss": 3.0}, {"val/loss": 4.0}]
    assert finite_points(records, "val/loss") == [(0, 1.5), (8, 0.5)]


def test_finite_points_take_the_later_record_of_a_repeated_step_and_sort_by_step():
    records = [{"step": 1, "x": 1.0}, {"step": 3, "x": 3.0}, {"step": 2, "x": 2.0}, {"step": 3, "x": 9.0}]
    assert finite_points(records, "x") == [(1, 1.0), (2, 2.0), (3, 9.0)]


@pytest.mark.parametrize(
    ("value", "expected"), [(3, 3.0), (0.5, 0.5), (None, None), (True, None), ("1", None)]
)
def test_to_float_takes_json_numbers_only(value, expected):
    assert to_float(value) == expected


def test_downsample_leaves_a_short_curve_as_it_is():
    assert downsample([(0, 1.0), (1, 2.0)], most=4) == [(0, 1.0), (1, 2.0)]


def test_downsample_keeps_ends_and_the_extremes_of_every_stretch():
    # With most=6 the eight inner points fall into two stretches: indices 1 to 4 and 5 to 8.
    points = list(enumerate([5.0, 1.0, 9.0, 2.0, 3.0, 4.0, 0.5, 6.0, 5.0, 7.0]))
    assert downsample(points, most=6) == [(0, 5.0), (1, 1.0), (2, 9.0), (6, 0.5), (7, 6.0), (9, 7.0)]


@pytest.mark.parametrize("num_points", [5, 399, 401, 2000, 50_001])
def test_downsample_keeps_a_lone_spike_and_its_bound(num_points):
    points = [(step, 1.0) for step in range(num_points)]
    points[num_points // 2] = (num_points // 2, 99.0)
    thinned = downsample(points, most=400)
    assert len(thinned) <= 400
    assert (num_points // 2, 99.0) in thinned
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])


def test_downsample_refuses_a_bound_without_room():
    with pytest.raises(ValueError, match="most=3"):
        downsample([], most=3)


def test_smooth_is_a_debiased_moving_average():
    # span 3 is alpha 1/2: weights 1, then 1/3 and 2/3, then 1/7, 2/7 and 4/7.
    smoothed = smooth([(0, 3.0), (1, 6.0), (2, 13.0)], span=3)
    assert [step for step, _ in smoothed] == [0, 1, 2]
    assert [value for _, value in smoothed] == pytest.approx([3.0, 5.0, (3 + 12 + 52) / 7])


@pytest.mark.parametrize("name", list(PLOTS))
def test_every_plot_labels_both_axes_and_says_in_words_what_it_shows(name):
    svg = draw_plot(PLOTS[name], TRAIN)
    root = ET.fromstring(svg)
    assert {"optimizer step", PLOTS[name].y_label} <= set(texts(svg))
    assert re.search(r"\(.+\)|per second", PLOTS[name].y_label), "the label carries a unit"
    assert root.get("role") == "img"
    assert root.get("aria-label") == describe_plot(PLOTS[name], TRAIN)


def test_description_gives_ends_and_extremes():
    records = [
        {"step": 1, "train/loss": 2.5},
        {"step": 2, "train/loss": 3.0},
        {"step": 3, "train/loss": 0.25},
    ]
    expected = "train from 2.5 at step 1 to 0.25 at step 3, lowest 0.25, highest 3."
    assert expected in describe_plot(PLOTS["loss"], records)


def test_loss_plot_shows_raw_smoothed_and_validation():
    svg = draw_plot(PLOTS["loss"], [*TRAIN, {"step": 0, "val/loss": 2.1}, {"step": 30, "val/loss": 0.4}])
    assert {"train", "smoothed (span 3)", "validation"} <= set(texts(svg))
    assert "var(--series-1)" in svg
    assert "var(--series-2)" in svg


def test_tick_labels_keep_their_digits():
    records = [{"step": step, "train/lr": value} for step, value in enumerate([0.012, 0.014])]
    assert {"0.0120", "0.0140"} <= set(texts(draw_plot(PLOTS["learning-rate"], records)))


def test_validation_alone_is_drawn():
    svg = draw_plot(PLOTS["loss"], [{"step": 0, "val/loss": 2.1}])
    assert "var(--series-2)" in svg
    assert "train" not in texts(svg)


def test_nothing_to_draw_gives_an_empty_string():
    assert draw_plot(PLOTS["loss"], []) == ""
    assert draw_plot(PLOTS["loss"], [{"step": 1, "train/loss": math.nan}]) == ""


def test_non_finite_values_are_left_out_and_counted():
    records = [*TRAIN, {"step": 31, "train/loss": math.nan}, {"step": 32, "val/loss": math.inf}]
    assert count_non_finite(PLOTS["loss"], records) == 2
    assert "nan" not in draw_plot(PLOTS["loss"], records).lower()


@pytest.mark.parametrize("values", [[0.0, 0.0], [-1.0, -2.0], [1e99, 1e-99], [5.0]])
def test_unusual_values_are_drawn_without_a_warning(values, recwarn):
    for spec in PLOTS.values():
        metric = spec.curves[0].metric
        assert draw_plot(spec, [{"step": step, metric: value} for step, value in enumerate(values)])
    assert not recwarn.list


def test_a_spike_that_would_flatten_the_curve_gives_a_log_axis():
    spiked = [*TRAIN, {"step": 31, "train/grad_norm": 800.0}]
    assert "L2 norm (no unit), log scale" in texts(draw_plot(PLOTS["grad-norm"], spiked))


def test_svg_can_stand_in_a_page_beside_others():
    drawn = [draw_plot(spec, TRAIN) for spec in PLOTS.values()]
    ids = re.findall(r' id="([^"]+)"', "".join(drawn))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', "".join(drawn))
    assert len(ids) == len(set(ids))
    assert {one or other for one, other in targets} <= set(ids)
    assert not re.search(r"http|<style|<metadata|#0a0b0", "".join(drawn))


def test_drawing_repeats_exactly_and_leaves_no_settings_behind():
    before = dict(matplotlib.rcParams)
    assert draw_plot(PLOTS["loss"], TRAIN) == draw_plot(PLOTS["loss"], TRAIN)
    assert dict(matplotlib.rcParams) == before
