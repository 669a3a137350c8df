"""Tables of a run's report: memory, quantization and what the adapter learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from loralab.evaluation.adapter_report import LayerUpdate, group_by_kind, pattern_yaml

GIB, MIB = 2**30, 2**20
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class ReportTable:
    """A table as it is printed."""

    title: str
    """Heading."""
    note: str
    """What it shows, in a sentence."""
    columns: tuple[str, ...]
    """Headings of the columns, the first of row headings."""
    rows: Sequence[tuple[str, ...]]
    """Cells, ready to print."""
    code: str = ""
    """Text to copy, shown below the table."""


def memory_table(memory: Mapping[str, Any]) -> ReportTable | None:
    """Shows what was measured in each stage; None where nothing was."""
    stages = memory.get("stages") or []
    if not stages:
        return None
    rows = [
        (
            str(stage["stage"]).replace("_", " "),
            *(_gib(stage.get(key)) for key in ("peak_gib", "resident_gib", "allocated_gib", "reserved_gib")),
        )
        for stage in stages
    ]
    return ReportTable(
        "Memory by stage",
        "The highest of each stage, in GiB. Peak is of tensors on a GPU, else of resident memory.",
        ("Stage", "Peak", "Resident", "Allocated", "Reserved"),
        rows,
    )


def estimate_table(memory: Mapping[str, Any]) -> ReportTable | None:
    """Sets the estimated peak of a step, by part, beside the measured one; None where there is none."""
    parts: Mapping[str, int] = memory.get("estimate") or {}
    if not parts:
        return None
    total, measured = sum(parts.values()) / GIB, memory.get("measured_peak_gib")
    rows = [(name, f"{size / GIB:.3f}") for name, size in parts.items()]
    rows.append(("estimated peak", f"{total:.3f}"))
    if measured:
        rows.append(("measured peak", f"{measured:.3f}"))
        rows.append(("estimate / measured", f"{total / measured:.1%}"))
    return ReportTable(
        "Memory of a step, estimated before the run",
        "By part, for a micro-batch of the longest rows, in GiB; measured on the steps that were taken.",
        ("Part", "GiB"),
        rows,
    )


def quantization_table(layers: Sequence[Mapping[str, Any]]) -> ReportTable | None:
    """Shows how the base is stored, by kind of layer; None where nothing is known."""
    if not layers:
        return None
    rows = [
        (
            str(layer["name"]),
            f"{layer['num_values']:,}",
            f"{layer['bytes_full'] / MIB:,.1f}",
            f"{layer['bytes_stored'] / MIB:,.1f}",
            f"{layer['bits_per_value']:.3f}",
            DASH if layer.get("relative_error") is None else f"{layer['relative_error']:.2%}",
        )
        for layer in layers
    ]
    return ReportTable(
        "How the base is stored",
        "Bits count the quantization constants. The error is that of the weights: |W - Q(W)| / |W|.",
        ("Layers", "Parameters", "MiB in full", "MiB stored", "Bits per parameter", "Relative error"),
        rows,
    )


def adapter_table(layers: Sequence[LayerUpdate]) -> ReportTable | None:
    """Shows what each projection learned and the ranks that would suit it; None where there is no update."""
    if not layers:
        return None
    rows = []
    for kind, updates in group_by_kind(layers).items():
        scales = [update.gradient_rms for update in updates if update.gradient_rms is not None]
        rows.append((
            f"{kind} x {len(updates)}",
            _span([update.norm for update in updates], "{:.3g}"),
            _span([update.effective_rank for update in updates], "{:.1f}"),
            _span([update.highest_rank for update in updates], "{}"),
            f"{mean(scales):.2g}" if scales else DASH,
        ))  # fmt: skip
    doubled = (
        "The rank is 2 r: the update counts from the first one that was taken from the weights, and is saved "
        "with it. The ranks below are values of r for the same start. "
        if any(update.doubled for update in layers)
        else ""
    )
    return ReportTable(
        "What the adapter learned",
        "Smallest to largest of each projection's layers: norm of the update, and effective rank (the "
        "exponential of the entropy of its singular values) against the rank it has. "
        f"{doubled}Every layer is in adapter.json. The ranks below follow from it and can be pasted into a "
        "config.",
        ("Projection", "Norm of the update", "Effective rank", "Rank", "Gradient (RMS)"),
        rows,
        pattern_yaml(layers),
    )


def _span(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def _gib(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"
