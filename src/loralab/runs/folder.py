"""Run folders: their ids, their files and how to find them again."""

import datetime
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab.errors import ConfigError, did_you_mean

BEGINNING = (".lock", "overrides.yaml", "manifest.json", "data.json")
"""What is written before `config.yaml`, with which a folder is a run."""
MOST_CLOSE = 3
"""Runs that are named where the one that was asked for does not exist."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder and the names of what lies in it."""

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def config_path(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def overrides_path(self) -> Path:
        """What the user typed."""
        return self.path / "overrides.yaml"

    @property
    def manifest_path(self) -> Path:
        """Versions, hashes and hardware."""
        return self.path / "manifest.json"

    @property
    def metrics_path(self) -> Path:
        """One JSON line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def summary_path(self) -> Path:
        """The end of the run in one flat object."""
        return self.path / "summary.json"

    @property
    def data_path(self) -> Path:
        """What became of the rows of each split."""
        return self.path / "data.json"

    @property
    def samples_path(self) -> Path:
        """Prompts answered by base and tuned model, side by side."""
        return self.path / "samples.jsonl"

    @property
    def watch_path(self) -> Path:
        """The same few prompts, answered at each validation."""
        return self.path / "watch.jsonl"

    @property
    def predictions_path(self) -> Path:
        """Every test prompt with both answers."""
        return self.path / "predictions.jsonl"

    @property
    def checkpoints_dir(self) -> Path:
        """`step-N`, and `last` and `best` that lead to two of them."""
        return self.path / "checkpoints"

    @property
    def profile_dir(self) -> Path:
        """The trace of a few steps and the table of where their time went."""
        return self.path / "profile"

    @property
    def lock_path(self) -> Path:
        """Held by the process that trains the run."""
        return self.path / ".lock"

    @property
    def adapter_dir(self) -> Path:
        """The best adapter in PEFT's own format."""
        return self.path / "adapter"


def new_run_id(label: str, now: datetime.datetime, job: int | None = None) -> str:
    """Makes a run id such as `2026-01-31_09-30-00_smollm2_135m_r16`; a job of a multirun adds its number."""
    stamp = now.strftime("%Y-%m-%d_%H-%M-%S")
    safe = re.sub(r"[^\w.-]+", "-", label)
    return f"{stamp}_{safe}" + ("" if job is None else f"_{job}")


def create_run(outputs_dir: str, command: str, run_id: str) -> RunFolder:
    """Makes the folder `outputs_dir/command/run_id`.

    Raises:
        ConfigError: It exists already.
    """
    path = Path(outputs_dir) / command / run_id
    try:
        path.mkdir(parents=True, exist_ok=_is_barely_begun(path))
    except FileExistsError as error:
        again = (
            f", or continue it with {resume_command(RunFolder(path.absolute()))}"
            if command == "train"
            else ""
        )
        raise ConfigError(f"{path} exists already. Choose another name{again}.") from error
    return RunFolder(path.absolute())


def _is_barely_begun(path: Path) -> bool:
    """Says whether a folder holds nothing but what a command killed at its very beginning leaves."""
    return path.is_dir() and all(
        item.name in BEGINNING or (item.name.startswith(".") and item.suffix == ".tmp")
        for item in path.iterdir()
    )


def check_writable(outputs_dir: str, key: str) -> None:
    """Refuses an outputs folder that cannot be written, before any work is done.

    Args:
        outputs_dir: The folder.
        key: The config key that names it, for the message.

    Raises:
        ConfigError: It cannot be made or written.
    """
    try:
        Path(outputs_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=outputs_dir):
            pass
    except OSError as error:
        raise ConfigError(
            f"{key}={outputs_dir} cannot be written ({error.strerror}). Choose another folder."
        ) from error


def find_run(outputs_dir: str, reference: str, key: str) -> RunFolder:
    """Finds a training run by folder or by id.

    Args:
        outputs_dir: Where `train/<run id>` lies.
        reference: What the user gave.
        key: The config key they gave it under, for the message.

    Raises:
        ConfigError: There is no such run; the message gives the closest ids.
    """
    for path in (Path(reference), Path(outputs_dir) / "train" / reference):
        if RunFolder(path).config_path.is_file():
            return RunFolder(path.absolute())
    train_dir = Path(outputs_dir) / "train"
    begun = sorted(train_dir.glob("*/config.yaml"), key=lambda path: (path.stat().st_mtime_ns, path))
    known = [path.parent.name for path in reversed(begun)]
    if not known:
        raise ConfigError(f"{key}={reference} is not a run. There is none in {train_dir}.")
    # An id begins with date and time, which makes the rest of it alone no close match.
    parts = [name for name in known if reference in name]
    close = f" Did you mean {' or '.join(map(repr, parts[:MOST_CLOSE]))}?" if parts else ""
    others = "" if outputs_dir == "outputs" else f" --outputs {outputs_dir}"
    raise ConfigError(
        f"{key}={reference} is not a run.{close or did_you_mean(reference, known, MOST_CLOSE)} The latest is "
        f"{known[0]!r}; `loralab runs list{others}` shows all."
    )


def resume_command(run: RunFolder) -> str:
    """Returns what to type to continue a run, wherever its folder is."""
    is_default = run.path.parent == (Path("outputs") / "train").absolute()
    return f"python train.py resume={run.run_id if is_default else run.path}"


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all: under a temporary name, synced, then renamed.

    Text of rows can hold lone surrogates, which UTF-8 cannot: they become `?`.
    """
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("w", encoding="utf-8", errors="replace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes one object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object that `write_json` wrote; an absent file is an empty object."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
