"""The verdict, the table and the picture of `same_loss.py`."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import machine_line

PLAIN, ON = "plain", "fast"
WAYS = (PLAIN, ON)
"""Every option of `trainer.speed` off; on."""
Runs = Sequence[Mapping[str, Any]]


def judge(plain: Runs, fast: Runs) -> list[dict[str, Any]]:
    """Holds the differences of the two ways against the spread between seeds.

    Args:
        plain: One run for each seed, with its `seed`, `losses` of its steps and `val_loss`.
        fast: The other way, of the same seeds.

    Returns:
        For the mean over all steps, for single steps, and for the validation rows: the difference of fast and
        plain, each seed by itself, then averaged (of single steps its size); the standard deviation between
        the seeds of the plain way; and whether the difference is at most that.
    """
    assert [run["seed"] for run in plain] == [run["seed"] for run in fast], "the same seeds, in one order"
    steps = list(zip(*(run["losses"] for run in plain), strict=True))
    gaps = [
        after - before
        for run, other in zip(plain, fast, strict=True)
        for before, after in zip(run["losses"], other["losses"], strict=True)
    ]
    val_gaps = [other["val_loss"] - run["val_loss"] for run, other in zip(plain, fast, strict=True)]
    found = [
        (
            "mean of all steps",
            statistics.fmean(gaps),
            statistics.stdev(statistics.fmean(run["losses"]) for run in plain),
        ),
        (
            "single steps, mean size",
            statistics.fmean(map(abs, gaps)),
            statistics.fmean(map(statistics.stdev, steps)),
        ),
        (
            "validation rows at the end",
            statistics.fmean(val_gaps),
            statistics.stdev(run["val_loss"] for run in plain),
        ),
    ]
    return [
        {"loss": loss, "difference": difference, "spread": spread, "holds": abs(difference) <= spread}
        for loss, difference, spread in found
    ]


def to_markdown(report: dict[str, Any]) -> str:
    """Writes the verdict and the losses of all runs as tables."""
    plain, fast = (report["runs"][way] for way in WAYS)
    options = ", ".join(f"`{name}` ({off} and {on})" for name, (off, on) in sorted(report["options"].items()))
    holds = all(each["holds"] for each in report["verdict"])
    lines = [
        "# The same loss", "", machine_line(report["machine"]), "",
        f"SmolLM2-135M in bfloat16, rank 16 on all linear layers, {len(plain[0]['losses'])} steps of "
        f"{report['rows']} rows, {len(plain)} seeds, which change the order of the rows and the "
        f"adapter's first weights. Options of `trainer.speed`, off (plain) and on (fast): {options}.",
        "",
        f"The fast way is the plain one within the noise of the seed: **{'yes' if holds else 'no'}**.", "",
        "| loss | fast - plain at the same seed | standard deviation between seeds | within it |",
        "|---|---|---|---|",
        *(
            f"| {each['loss']} | {each['difference']:+.5f} | {each['spread']:.5f} | "
            f"{'yes' if each['holds'] else 'no'} |"
            for each in report["verdict"]
        ), "",
        "| seed | validation loss, plain | fast | last step, plain | fast |",
        "|---|---|---|---|---|",
        *(
            f"| {run['seed']} | {run['val_loss']:.5f} | {other['val_loss']:.5f} | "
            f"{run['losses'][-1]:.5f} | {other['losses'][-1]:.5f} |"
            for run, other in zip(plain, fast, strict=True)
        ), "", "![](same_loss.png)", "",
    ]  # fmt: skip
    return "\n".join(lines)


def mean_and_spread(runs: Runs) -> tuple[list[float], list[float]]:
    """Returns the mean loss of each step over the seeds, and its standard deviation between them."""
    steps = list(zip(*(run["losses"] for run in runs), strict=True))
    return [statistics.fmean(step) for step in steps], [statistics.stdev(step) for step in steps]


def draw(runs: Mapping[str, Runs], path: Path) -> None:
    """Draws mean and spread of the losses of both ways, and below the difference at each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.5), layout="constrained")
    losses, differences = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    steps = range(1, len(runs[PLAIN][0]["losses"]) + 1)
    for way, color, style in ((PLAIN, "#0072b2", "-"), (ON, "#d55e00", "--")):
        means, spreads = mean_and_spread(runs[way])
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        losses.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        losses.plot(steps, means, style, color=color, label=f"{way}: mean and standard deviation of seeds")
    losses.set_ylabel("loss (nats per token)")
    losses.legend(fontsize=8)
    losses.set_title("options of trainer.speed off (plain) and on (fast)")
    for run, other in zip(runs[PLAIN], runs[ON], strict=True):
        gaps = [after - before for before, after in zip(run["losses"], other["losses"], strict=True)]
        differences.plot(steps, gaps, label=f"seed {run['seed']}")
    differences.axhline(0, color="#888888", linewidth=0.8)
    differences.set_ylabel("fast - plain (nats)")
    differences.set_xlabel("optimizer step")
    differences.xaxis.get_major_locator().set_params(integer=True)
    differences.legend(fontsize=8)
    figure.savefig(path, dpi=110)
