"""Tables and pictures of the curves that `curves.py` measures."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import machine_line

FLAT = 0.10
"""How much slower than the fastest point of a flat curve its slowest may be."""
Point = Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """What varies along a curve."""

    label: str
    """What is on the x axis, with its unit."""
    speed: str = "tokens_per_s"
    """The figure of speed of its points."""
    must_be_flat: bool = False
    """Whether speed should not depend on it."""
    note: str = ""
    """What stays the same along it."""


AXES = {
    "length": Axis("sequence length (tokens)", note="one row a step, rank 16"),
    "rank": Axis("rank", must_be_flat=True, note="one row of 1,024 tokens a step"),
    "micro_batch_tokens": Axis(
        "micro-batch (tokens)", note="rows of 512 tokens, one micro-batch a step, rank 16"
    ),
    "processes": Axis(
        "processes", note="two rows of 512 tokens a step, dealt to the processes, which share the cores "
        "(gloo); speed of all, memory of one"
    ),
    "prepared_rows": Axis(
        "rows in preparation", "rows_per_s", must_be_flat=True,
        note="synthetic rows, read, filtered, tokenized and packed; memory of all processes",
    ),
}  # fmt: skip
UNITS = {"tokens_per_s": "tokens/s", "rows_per_s": "rows/s"}


def slowest_to_fastest(points: Sequence[Point], speed: str) -> float:
    """Returns the lowest speed of a curve as a share of its highest."""
    speeds = [point[speed] for point in points]
    return float(min(speeds) / max(speeds))


def arithmetic(point: Point) -> float:
    """Returns the multiply-adds that a token takes of the weights, attention aside.

    A frozen number is multiplied forward and for the gradient of its input, one that trains also for its own
    gradient (arXiv:2001.08361, section 2.1, has 2 forward and 4 backward with the addition counted apart).
    """
    return float(2 * point["frozen"] + 3 * point["trained"])


def speeds_of_added(points: Sequence[Point]) -> list[float]:
    """Returns the rows per second of those that each point has more than the one before: no start is in them.

    Args:
        points: By rising `x`, each with its rows `x` and their `seconds`.
    """
    return [
        (after["x"] - before["x"]) / (after["seconds"] - before["seconds"])
        for before, after in itertools.pairwise(points)
    ]


def verdict(name: str, points: Sequence[Point]) -> str:
    """Says how flat a curve is, and where it should be whether it is."""
    axis = AXES[name]
    ratio = slowest_to_fastest(points, axis.speed)
    text = f"Slowest to fastest: {ratio:.2f}."
    if axis.must_be_flat:
        is_flat = ratio >= 1 - FLAT
        text += f" Flat within {FLAT:.0%}: {'yes' if is_flat else 'no'}."
    if name == "prepared_rows" and len(points) > 1:
        added = ", ".join(f"{each:,.0f}" for each in speeds_of_added(points))
        text += f" The rows that each line has more than the one before, without the start: {added} rows/s."
    if name == "rank":
        loads = [arithmetic(point) for point in points]
        text += (
            f" The multiply-adds alone would make {min(loads) / max(loads):.2f}: the largest adapter has "
            f"{points[-1]['trained'] / 1e6:,.1f} million numbers beside {points[-1]['frozen'] / 1e6:,.1f} "
            "million frozen ones."
        )
    return text


def to_markdown(report: dict[str, Any]) -> str:
    """Lays the curves out as a table each."""
    lines = [
        "# How cost grows", "", machine_line(report["machine"]), "",
        "SmolLM2-135M unquantized in the machine's compute dtype, LoRA on all linear layers. A row is one "
        "document of its length, not packed or padded; nearly every token is learned. One step to warm up, "
        "but where steps have 4,096 tokens and more, then those that are timed. Memory is resident.", "",
    ]  # fmt: skip
    for name, points in report["curves"].items():
        lines += [*table(name, points), "", verdict(name, points), ""]
    return "\n".join([*lines, "![](curves.png)", ""])


def table(name: str, points: Sequence[Point]) -> list[str]:
    """Lays one curve out."""
    axis = AXES[name]
    timed = [f" {point['timed_steps']} |" if "timed_steps" in point else "" for point in points]
    has_steps = any(timed)
    return [
        f"## By {axis.label}", "",
        f"{axis.note[0].upper()}{axis.note[1:]}.", "",
        f"| {axis.label} | {UNITS[axis.speed]} | peak memory |{' timed steps |' if has_steps else ''}",
        f"|---|---|---|{'---|' if has_steps else ''}",
        *(
            f"| {point['x']:,} | {point[axis.speed]:,.0f} | {point['peak_gib']:.2f} GiB |{steps}"
            for point, steps in zip(points, timed, strict=True)
        ),
    ]  # fmt: skip


def draw(curves: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Draws speed above peak memory, a column for each curve."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    figure = Figure(figsize=(3.6 * len(curves), 6.4), layout="constrained")
    panels = figure.subplots(2, len(curves), squeeze=False)
    for column, (name, points) in enumerate(curves.items()):
        axis = AXES[name]
        places = [point["x"] for point in points]
        rows = ((axis.speed, UNITS[axis.speed], "#0072b2"), ("peak_gib", "peak memory (GiB)", "#d55e00"))
        for axes, (figure_name, unit, color) in zip(panels[:, column], rows, strict=True):
            axes.plot(places, [point[figure_name] for point in points], "o-", color=color)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(places))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticklabels([f"{place:,}" for place in places], rotation=40, ha="right", fontsize=8)
            axes.set_ylim(0, 1.1 * max(point[figure_name] for point in points))
            axes.set_xlabel(axis.label)
            axes.set_ylabel(unit)
            axes.grid(alpha=0.3)
    figure.suptitle("speed and peak memory of training SmolLM2-135M with LoRA, and of preparing rows")
    figure.savefig(path, dpi=110)
