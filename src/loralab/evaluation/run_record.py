"""What a run folder says: its files read into one record."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from loralab.errors import DataError
from loralab.runs.profile import FIGURES


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says; an absent file leaves its field empty."""

    run_id: str
    """From the summary, else the manifest, else the name of the folder."""
    config_text: str = ""
    """`config.yaml` as written."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved config."""
    overrides: Sequence[Any] = ()
    """What the user typed."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """Versions, commit, data hashes, seed, hardware, chat template."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """Logged lines, oldest first."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """The end of the run in one flat object."""
    splits: Mapping[str, Any] = field(default_factory=dict)
    """Counts of each data split, from `data.json`."""
    samples: Sequence[Mapping[str, Any]] = ()
    """Generations of the base and the tuned model."""
    references: Sequence[str] = ()
    """What each answer of the test split was compared with."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """Memory by stage and its estimate."""
    quantization: Sequence[Mapping[str, Any]] = ()
    """How the base is stored, a row for each kind of layer."""
    adapter: Sequence[Mapping[str, Any]] = ()
    """What each adapted layer learned."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """Where the time of a step goes, if a few were profiled."""
    watched: Sequence[Mapping[str, Any]] = ()
    """The same few prompts, answered at each validation."""
    num_unreadable: int = 0
    """Lines of the `.jsonl` files that are no JSON object, as a killed run leaves them."""


def load_run(run_dir: Path) -> RunRecord:
    """Reads the files of a run folder; the absent ones leave their fields empty.

    Raises:
        DataError: the folder does not exist, or one of its YAML or JSON files cannot be parsed.
    """
    if not run_dir.is_dir():
        raise DataError(
            f"run folder {run_dir} does not exist. Give the folder that a run printed at its end."
        )
    config = _read_yaml(run_dir / "config.yaml")
    overrides = _read_yaml(run_dir / "overrides.yaml")
    manifest = _read_json(run_dir / "manifest.json")
    summary = _read_json(run_dir / "summary.json")
    metrics, num_bad_metrics = _read_lines(run_dir / "metrics.jsonl")
    samples, num_bad_samples = _read_lines(run_dir / "samples.jsonl")
    watched, num_bad_watched = _read_lines(run_dir / "watch.jsonl")
    predictions, num_bad_predictions = _read_lines(run_dir / "predictions.jsonl")
    return RunRecord(
        run_id=str(summary.get("run_id") or manifest.get("run_id") or run_dir.resolve().name),
        config_text=_read_text(run_dir / "config.yaml"),
        config=as_mapping(config),
        overrides=overrides if isinstance(overrides, list) else (),
        manifest=manifest,
        metrics=metrics,
        summary=summary,
        splits={
            k: as_mapping(v) for k, v in as_mapping(_read_json(run_dir / "data.json").get("splits")).items()
        },
        samples=samples,
        references=[row["reference"] for row in predictions if isinstance(row.get("reference"), str)],
        memory=_read_json(run_dir / "memory.json"),
        quantization=_read_json(run_dir / "quantization.json").get("layers", ()),
        adapter=_read_json(run_dir / "adapter.json").get("layers", ()),
        profile=_read_json(run_dir / "profile" / FIGURES),
        watched=watched,
        num_unreadable=num_bad_metrics + num_bad_samples + num_bad_watched + num_bad_predictions,
    )


def as_mapping(value: object) -> Mapping[str, Any]:
    """Returns a mapping with text keys, empty when the value is something else."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} is not valid YAML ({reason}). Restore it, or delete it to do without."
        ) from error


def _read_json(path: Path) -> Mapping[str, Any]:
    text = _read_text(path)
    try:
        return as_mapping(json.loads(text)) if text else {}
    except ValueError as error:
        raise DataError(
            f"{path} is not valid JSON ({error}). Restore it, or delete it to do without."
        ) from error


def _read_lines(path: Path) -> tuple[list[Mapping[str, Any]], int]:
    """Reads a `.jsonl` file and counts the lines that are no JSON object."""
    rows: list[Mapping[str, Any]] = []
    num_unreadable = 0
    # Not splitlines: generated text may hold U+2028 and the like, which JSON leaves unescaped.
    for line in filter(str.strip, _read_text(path).split("\n")):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            num_unreadable += 1
    return rows, num_unreadable
