"""Checks of a run folder: what must be there, what it says, and that weights are what was measured."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loralab import metrics
from loralab.config.load import read_yaml
from loralab.config.schema import TrainConfig
from loralab.errors import LoralabError
from loralab.runs.checkpoint import WEIGHTS, checkpoint_faults, sha256_of
from loralab.runs.folder import RunFolder
from loralab.runs.series import BEST, LAST, read_progress, saved_steps, step_dir

ALWAYS = ("config.yaml", "overrides.yaml", "manifest.json", "data.json", "summary.json")
COMPLETED = (
    "metrics.jsonl", "report.html", "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
)  # fmt: skip
HUB = "hub:"
"""What the paths of data from the Hub begin with."""
LORA = ".lora_"
"""What the names of tensors hold that every file of their method has."""
NAMES = (".default", ".modules_to_save.default")
"""What PEFT leaves out of the names of parameters when it saves them."""


def verify_run(run: RunFolder) -> list[str]:
    """Lists everything that is wrong with a run folder; nothing where it is whole."""
    faults = [*_faults_of_files(run), *_faults_of_config(run)]
    if faults:
        return faults
    checks = (_faults_of_metrics, _faults_of_checkpoints, _faults_of_adapter, _faults_of_data)
    return [fault for check in checks for fault in check(run)]


def _faults_of_files(run: RunFolder) -> Iterator[str]:
    for name in ALWAYS:
        if not (run.path / name).is_file():
            yield f"{name} is missing"
    for path in sorted(run.path.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            yield f"{path.name} is no JSON: {error}"
            continue
        if path == run.summary_path and content.get("status") == "completed":
            yield from (f"{name} is missing" for name in COMPLETED if not (run.path / name).is_file())


def _faults_of_config(run: RunFolder) -> Iterator[str]:
    if run.config_path.is_file():
        try:
            read_yaml(run.config_path, TrainConfig)
        except LoralabError as error:
            yield f"config.yaml: {error}"


def _faults_of_metrics(run: RunFolder) -> Iterator[str]:
    last: dict[str, int] = {metrics.TRAIN_LOSS: 0, metrics.VAL_LOSS: -1}
    text = run.metrics_path.read_text(encoding="utf-8", errors="replace") if run.metrics_path.exists() else ""
    if text and not text.endswith("\n"):
        yield f"{run.metrics_path.name}: the last line is cut off"
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{run.metrics_path.name} line {number}"
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, KeyError, TypeError):
            yield f"{where} is no JSON object with a step"
            continue
        for kind, before in last.items():
            if kind in row:
                if step <= before:
                    yield f"{where}: step {step} comes after step {before}"
                last[kind] = step
    finished = _read(run.summary_path).get("step", 0)
    if _is_complete(run) and last[metrics.TRAIN_LOSS] != finished:
        ends = last[metrics.TRAIN_LOSS]
        yield f"{run.metrics_path.name} ends with step {ends}, and summary.json says {finished}"


def _faults_of_checkpoints(run: RunFolder) -> Iterator[str]:
    folder, steps = run.checkpoints_dir, saved_steps(run.checkpoints_dir)
    if _is_complete(run) and not steps:
        yield "checkpoints/ holds no checkpoint"
    for step in steps:
        faults = checkpoint_faults(step_dir(folder, step))
        yield from (fault.removeprefix(f"{run.path}/") for fault in faults)
        if not faults and read_progress(folder, step).get("step") != step:
            yield f"checkpoints/step-{step} is that of step {read_progress(folder, step).get('step')}"
    for name in (LAST, BEST):
        if (folder / name).is_symlink() and not (folder / name).exists():
            yield f"checkpoints/{name} leads to {(folder / name).readlink()}, which is not there"


def _faults_of_adapter(run: RunFolder) -> Iterator[str]:
    path, best = run.adapter_dir / "adapter_model.safetensors", best_step(run)
    if not path.is_file():
        return
    try:
        saved = load_file(path)
    except (SafetensorError, OSError) as error:
        yield f"adapter/{path.name} cannot be opened: {error}"
        return
    if best is None or not _is_complete(run):
        return
    if not step_dir(run.checkpoints_dir, best).is_dir():
        yield f"checkpoints/step-{best}, the best one, is missing"
    elif not checkpoint_faults(step_dir(run.checkpoints_dir, best)):
        differing = differing_tensors(load_file(step_dir(run.checkpoints_dir, best) / WEIGHTS), saved)
        if differing:
            yield (
                f"adapter/{path.name}: {len(differing)} tensors, such as {differing[0]}, are not those of "
                f"checkpoints/step-{best}, the best one"
            )


def _faults_of_data(run: RunFolder) -> Iterator[str]:
    for entry in _read(run.manifest_path).get("data", []):
        path = Path(entry["path"])
        if entry["path"].startswith(HUB):
            continue
        if not path.is_file():
            yield f"{path} is gone"
        elif sha256_of(path) != entry["sha256"]:
            yield f"{path} has changed since the run began"


def best_step(run: RunFolder) -> int | None:
    """Returns the step of the best checkpoint; None where the newest one, which knows it, is not whole."""
    steps = saved_steps(run.checkpoints_dir)
    if not steps or checkpoint_faults(step_dir(run.checkpoints_dir, steps[0])):
        return None
    found: int | None = read_progress(run.checkpoints_dir, steps[0])["best"].get("step")
    return found


def differing_tensors(weights: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> list[str]:
    """Lists the tensors of an adapter file that are not the checkpoint's, or not there.

    A tensor of twice the rank (`lora.init=pissa` and its like) begins with the checkpoint's. What a method
    saves in another form (prompts, pruned ranks) cannot be compared and is left out.

    Args:
        weights: Of the checkpoint, by parameter name.
        saved: Of PEFT's file, by PEFT's names.
    """
    differing = []
    for name, ours in weights.items():
        found = next((key for part in NAMES if (key := name.replace(part, "")) in saved), None)
        if found is None and LORA in name:
            differing.append(name.replace(NAMES[0], ""))
        if found is None or saved[found].dim() != ours.dim():
            continue
        theirs = saved[found]
        rank = tuple(slice(0, size) for size in ours.shape)
        grown = [own != other for own, other in zip(ours.shape, theirs.shape, strict=True)]
        doubled = all(other in (own, 2 * own) for own, other in zip(ours.shape, theirs.shape, strict=True))
        if (not any(grown) or (doubled and sum(grown) == 1)) and not torch.equal(ours, theirs[rank].to(ours)):
            differing.append(found)
    return differing


def _is_complete(run: RunFolder) -> bool:
    return bool(_read(run.summary_path).get("status") == "completed")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
