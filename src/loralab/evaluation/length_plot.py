"""The lengths of a split's rows as inline SVG, in the style of the training curves."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loralab.evaluation.plots import INK, RC, SERIES_1, SERIES_2, embed

FAR = 2
"""A limit beyond so many times the longest row is left out of the drawing, which it would squeeze."""


def draw_lengths(histogram: Mapping[str, Sequence[int]], max_length: int, name: str) -> str:
    """Draws a histogram of row lengths with a line at the longest allowed one.

    Args:
        histogram: `edges` and `counts`, as a ledger has them; an empty one gives an empty string.
        max_length: `data.max_length`.
        name: The split; also the prefix of every id in the SVG.
    """
    if not histogram:
        return ""
    edges, counts = histogram["edges"], histogram["counts"]
    buffer = io.StringIO()
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(4.5, 2.7), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.bar(
            edges[:-1], counts, width=edges[1] - edges[0], align="edge", color=SERIES_1, alpha=0.75,
            edgecolor=SERIES_1, linewidth=0.4,
        )  # fmt: skip
        is_far = max_length > FAR * edges[-1]
        line: dict[str, Any] = {"color": SERIES_2, "linestyle": "--", "linewidth": 1.4}
        if is_far:
            axes.plot([], [], label=f"data.max_length {max_length:,}, further right", **line)
        else:
            axes.axvline(max_length, label=f"data.max_length {max_length:,}", **line)
        axes.set_xlim(left=0, right=1.02 * (edges[-1] if is_far else max(edges[-1], max_length)))
        axes.set_xlabel("tokens of a row")
        axes.set_ylabel("rows")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.0)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return embed(buffer.getvalue(), f"lengths-{name}", describe_lengths(histogram, max_length, name))


def describe_lengths(histogram: Mapping[str, Sequence[int]], max_length: int, name: str) -> str:
    """Says in words what the histogram shows, for readers who cannot see it."""
    edges, counts = histogram["edges"], histogram["counts"]
    most = max(range(len(counts)), key=counts.__getitem__)
    filled = [place for place, count in enumerate(counts) if count]
    return (
        f"Lengths of {sum(counts):,} {name} rows from {edges[filled[0]]:,} to below "
        f"{edges[filled[-1] + 1]:,} tokens, most of them ({counts[most]:,}) from "
        f"{edges[most]:,} to below {edges[most + 1]:,}; "
        f"data.max_length is {max_length:,}."
    )
