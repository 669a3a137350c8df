"""Training curves as inline SVG: pure functions from logged records to a string.

The SVG takes its colours from the page (`currentColor` and the CSS variables `--series-1` and
`--series-2`), so that one drawing is legible on a light and on a dark background.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loralab import metrics

Record = Mapping[str, object]
Point = tuple[float, float]

# Matplotlib knows no CSS variables: it draws in these stand-ins, which are replaced in the SVG text.
INK, SERIES_1, SERIES_2 = "#0a0b01", "#0a0b02", "#0a0b03"
PAGE_COLORS = {INK: "currentColor", SERIES_1: "var(--series-1)", SERIES_2: "var(--series-2)"}

LOG_SCALE_RATIO = 20.0
"""A curve whose peak is this many times its median hides its own shape on a linear axis."""

LARGEST_DRAWN = 1e100
"""Beyond this, axis limits overflow a float; such a value is left out like an infinite one."""

RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "loralab",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.limits": (-3, 5),
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


@dataclass(frozen=True)
class Curve:
    """One metric in a plot."""

    metric: str
    """Key of the metric in a record, such as `metrics.TRAIN_LOSS`."""
    label: str
    """Name in the legend."""
    style: Literal["line", "dashed", "smoothed", "points"] = "line"
    """`smoothed` draws every value thin and a moving average over it."""
    color: str = SERIES_1
    """Stand-in colour, a key of `PAGE_COLORS`."""


@dataclass(frozen=True)
class PlotSpec:
    """What a plot shows."""

    name: str
    """Short identifier; also the prefix of every id in the SVG."""

    title: str
    """Heading above the plot."""

    caption: str
    """One line that says how to read the plot."""

    y_label: str
    """Label of the vertical axis, with its unit."""

    curves: tuple[Curve, ...]
    """Curves in drawing order."""

    from_zero: bool = False
    """Whether the vertical axis starts at zero."""


PLOTS: dict[str, PlotSpec] = {
    spec.name: spec
    for spec in (
        PlotSpec(
            "loss",
            "Loss",
            "Mean cross entropy of the supervised tokens; the validation point at step 0 is the base model.",
            "loss (nats per token)",
            (
                Curve(metrics.TRAIN_LOSS, "train", "smoothed"),
                Curve(metrics.VAL_LOSS, "validation", "points", SERIES_2),
            ),
        ),
        PlotSpec(
            "learning-rate",
            "Learning rate",
            "The rate the optimizer used at each step, with warm-up and decay.",
            "learning rate (no unit)",
            (Curve(metrics.TRAIN_LR, "learning rate"),),
        ),
        PlotSpec(
            "grad-norm",
            "Gradient norm",
            "A norm that keeps growing, or spikes, is the first sign of an unstable run.",
            "L2 norm (no unit)",
            (Curve(metrics.TRAIN_GRAD_NORM, "gradient norm", "smoothed"),),
        ),
        PlotSpec(
            "throughput",
            "Throughput",
            "Tokens trained on per second; dips are pauses to save.",
            "tokens per second",
            (Curve(metrics.TRAIN_TOKENS_PER_S, "throughput", "smoothed"),),
            from_zero=True,
        ),
        PlotSpec(
            "memory",
            "Memory",
            "Resident memory of the process, and the highest use so far.",
            "memory (GiB)",
            (
                Curve(metrics.MEMORY_RSS_GIB, "resident"),
                Curve(metrics.MEMORY_PEAK_GIB, "peak", "dashed", SERIES_2),
            ),
            from_zero=True,
        ),
    )
}


def to_float(value: object) -> float | None:
    """Returns a JSON number as a float, or `None` for anything else (null, text, a boolean)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def metric_points(records: Sequence[Record], metric: str) -> list[Point]:
    """Returns `(step, value)` in order of step, non-finite values included.

    A resumed run logs the steps after its checkpoint a second time: the later record counts.
    """
    points: dict[float, float] = {}
    for record in records:
        step, value = to_float(record.get("step")), to_float(record.get(metric))
        if step is not None and value is not None and math.isfinite(step):
            points[step] = value
    return sorted(points.items())


def finite_points(records: Sequence[Record], metric: str) -> list[Point]:
    """Returns the points of `metric_points` that can be drawn."""
    return [point for point in metric_points(records, metric) if abs(point[1]) <= LARGEST_DRAWN]


def count_non_finite(spec: PlotSpec, records: Sequence[Record]) -> int:
    """Counts the values (NaN, infinity) that the plot has to leave out."""
    names = [curve.metric for curve in spec.curves]
    return sum(len(metric_points(records, name)) - len(finite_points(records, name)) for name in names)


def downsample(points: Sequence[Point], most: int = 400) -> list[Point]:
    """Thins a curve to at most `most` points, keeping its ends and the extremes of every stretch.

    Args:
        points: Points in order of step.
        most: Largest number of points returned; at least 4.

    Raises:
        ValueError: `most` is below 4, which leaves no room for two ends and two extremes.
    """
    smallest = 4
    if most < smallest:
        raise ValueError(f"most={most} is too small: at least {smallest} points are needed.")
    if len(points) <= most:
        return list(points)
    inner, num_buckets = len(points) - 2, (most - 2) // 2
    kept = {0, len(points) - 1}
    for bucket in range(num_buckets):
        start, stop = 1 + bucket * inner // num_buckets, 1 + (bucket + 1) * inner // num_buckets
        kept.add(min(range(start, stop), key=lambda index: points[index][1]))
        kept.add(max(range(start, stop), key=lambda index: points[index][1]))
    return [points[index] for index in sorted(kept)]


def smooth(points: Sequence[Point], span: int) -> list[Point]:
    """Returns the exponential moving average with `alpha = 2 / (span + 1)`, corrected for its start.

    The correction divides by `1 - (1 - alpha)^t` (Kingma and Ba 2015, "Adam", section 3), so that the
    first values are averages of what was seen and not pulled to zero.
    """
    decay = 1.0 - 2.0 / (span + 1)
    total = weight = 0.0
    smoothed = []
    for step, value in points:
        total = decay * total + (1.0 - decay) * value
        weight = decay * weight + (1.0 - decay)
        smoothed.append((step, total / weight))
    return smoothed


def smoothing_span(num_points: int) -> int:
    """Returns the span for a curve: a twentieth of its points, between 3 and 50."""
    return min(50, max(3, num_points // 20))


def describe_plot(spec: PlotSpec, records: Sequence[Record]) -> str:
    """Says in words what the plot shows, for readers who cannot see it."""
    parts = []
    for curve in spec.curves:
        points = finite_points(records, curve.metric)
        if points:
            (first_step, first), (last_step, last) = points[0], points[-1]
            values = [value for _, value in points]
            parts.append(
                f"{curve.label} from {first:.4g} at step {first_step:.0f} to {last:.4g} at step "
                f"{last_step:.0f}, lowest {min(values):.4g}, highest {max(values):.4g}"
            )
    return f"{spec.title} in {spec.y_label} by optimizer step: {'; '.join(parts)}."


def draw_plot(spec: PlotSpec, records: Sequence[Record]) -> str:
    """Draws one plot as an `<svg>` element, or returns an empty string when there is nothing to draw."""
    if not any(finite_points(records, curve.metric) for curve in spec.curves):
        return ""
    buffer = io.StringIO()
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(4.5, 2.7), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        for curve in spec.curves:
            _draw_curve(axes, curve, finite_points(records, curve.metric))
        _finish_axes(axes, spec, records)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return embed(buffer.getvalue(), spec.name, describe_plot(spec, records))


def _draw_curve(axes: Axes, curve: Curve, points: Sequence[Point]) -> None:
    if not points:
        return
    xs, ys = zip(*downsample(points), strict=True)
    marker = "o" if curve.style == "points" or len(points) == 1 else ""
    if curve.style != "smoothed":
        linestyle = {"dashed": "--", "points": ":"}.get(curve.style, "-")
        axes.plot(xs, ys, color=curve.color, marker=marker, markersize=4, ls=linestyle, label=curve.label)
        return
    span = smoothing_span(len(points))
    smooth_xs, smooth_ys = zip(*downsample(smooth(points, span)), strict=True)
    axes.plot(xs, ys, color=curve.color, marker=marker, linewidth=0.7, alpha=0.6, label=curve.label)
    axes.plot(smooth_xs, smooth_ys, color=curve.color, linewidth=1.8, label=f"smoothed (span {span})")


def _finish_axes(axes: Axes, spec: PlotSpec, records: Sequence[Record]) -> None:
    values = sorted(y for curve in spec.curves for _, y in finite_points(records, curve.metric))
    y_label = spec.y_label
    if values[0] > 0 and values[-1] > LOG_SCALE_RATIO * values[len(values) // 2]:
        axes.set_yscale("log")
        y_label += ", log scale"
    elif spec.from_zero:
        axes.set_ylim(bottom=0.0, top=1.08 * values[-1] if values[-1] > 0 else 1.0)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    if len(axes.lines) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(axes.lines), borderaxespad=0.0)


def embed(svg: str, name: str, description: str) -> str:
    """Turns a standalone SVG file into an element that can stand beside others in one HTML page."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    # Six decimals of a point double the size of the page; text, such as a tick label, stays as it is.
    svg = re.sub(r' (?:d|x|y|width|height|transform)="[^"]*"', lambda m: _round_numbers(m[0]), svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    svg = re.sub(r"<svg[^>]*>", f'<svg {view_box[0]} role="img" aria-label="{description}">', svg, count=1)
    svg = svg.replace("xlink:href=", "href=")
    # Matplotlib numbers its ids anew in each figure, and ids are global in a page.
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for stand_in, color in PAGE_COLORS.items():
        svg = svg.replace(stand_in, color)
    return svg


def _round_numbers(text: str) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", text)
