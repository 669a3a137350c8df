"""Two runs beside each other, bit for bit."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loralab import metrics
from loralab.runs.checkpoint import OTHERS, Checkpoint, load_checkpoint
from loralab.runs.folder import RunFolder, read_json
from loralab.runs.series import saved_steps, step_dir

TIMED = {"Recorder"}
"""Callbacks whose state holds how long things took."""
SUMMARY_ONLY = {"run_id", "wall_s"}
"""What two summaries never share besides measured figures."""


@dataclass(frozen=True)
class Verdict:
    """How one part of two runs compares."""

    part: str
    """What was compared."""
    num_values: int
    """How many numbers."""
    differences: tuple[str, ...]
    """The places that differ; none where both are the same bit for bit."""


def compare_runs(one: RunFolder, other: RunFolder) -> list[Verdict]:
    """Compares the last checkpoints, the logged lines and the summaries of two runs.

    Raises:
        DataError: A checkpoint is damaged.
    """
    first, second = newest_checkpoint(one), newest_checkpoint(other)
    parts: list[tuple[str, Any, Any]] = [
        ("weights", first.weights, second.weights),
        ("optimizer state", first.state["optimizer"], second.state["optimizer"]),
        ("method's state", first.state["method"], second.state["method"]),
        ("callbacks", _decisions(first), _decisions(second)),
        ("random generators", _generators(first), _generators(second)),
        ("logged numbers", logged_lines(one.metrics_path), logged_lines(other.metrics_path)),
        ("summary", _summary(one), _summary(other)),
    ]
    return [
        Verdict(part, sum(1 for _ in _leaves(ours)), tuple(differences(ours, theirs)))
        for part, ours, theirs in parts
    ]


def _decisions(checkpoint: Checkpoint) -> dict[str, Any]:
    """The state of callbacks, without those that count time."""
    return {name: state for name, state in checkpoint.state["callbacks"].items() if name not in TIMED}


def _generators(checkpoint: Checkpoint) -> list[Any]:
    """The random generators of all processes."""
    return [checkpoint.state["random"], *checkpoint.state.get(OTHERS, ())]


def newest_checkpoint(run: RunFolder) -> Checkpoint:
    """Loads the checkpoint of the last step."""
    return load_checkpoint(step_dir(run.checkpoints_dir, max(saved_steps(run.checkpoints_dir), default=0)))


def logged_lines(path: Path) -> list[dict[str, Any]]:
    """Reads a `metrics.jsonl` without figures of time and memory, and without the lines of those alone."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [{name: value for name, value in line.items() if not metrics.is_measured(name)} for line in lines]
    return [line for line in kept if line.keys() != {"step"}]


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Yields the places where two trees of mappings, lists, tensors and plain values are not the same."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or not torch.equal(one.cpu(), other.cpu()):
            yield place
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in {**one, **other}:
            if key in one and key in other:
                yield from differences(one[key], other[key], f"{place}/{key}")
            else:
                yield f"{place}/{key} is in one of them only"
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{place} has {len(one)} and {len(other)} entries"
        for number, (ours, theirs) in enumerate(zip(one, other, strict=False)):
            yield from differences(ours, theirs, f"{place}/{number}")
    elif one != other and not (one != one and other != other):  # noqa: PLR0124  # NaN is the same as NaN
        yield f"{place}: {one} and {other}"


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Tensor):
        yield from range(tree.numel())
    elif isinstance(tree, Mapping | list | tuple):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _leaves(value)
    else:
        yield tree


def _summary(run: RunFolder) -> dict[str, Any]:
    return {
        name: value
        for name, value in read_json(run.summary_path).items()
        if name not in SUMMARY_ONLY and not metrics.is_measured(name)
    }
