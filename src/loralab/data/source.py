"""The sources of a run: each with its files, its form and its share of the mixture."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from loralab.config.data import ColumnsConfig, DataConfig, PromptTemplateConfig, SourceConfig
from loralab.data.mixing import SourceShare
from loralab.data.sources import is_hub

PARTS = ("train", "val", "test")
EMBEDDED = {"train": "train.jsonl", "val": "validation.jsonl", "test": "test.jsonl"}


@dataclass(frozen=True)
class Source:
    """Rows of one form from one place, for one part of the data."""

    name: str
    """Name in tables and metrics."""
    part: str
    """train, val or test."""
    key: str
    """The config key that names it, for error messages."""
    path: Any
    """A file, folder, glob, list of them, or `hub:owner/name`."""
    form: str
    """`auto` or the name of a form."""
    columns: dict[str, str]
    """The row's field for each of our names that the user mapped."""
    prompt_template: PromptTemplateConfig
    """Templates that build the turns, where `user` is set."""
    encoding: str
    """Text encoding of the files."""
    subset: str | None = None
    """Configuration of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    weight: float | None = None
    """Share of the mixture relative to the other weights."""
    rows: int | None = None
    """Rows of an epoch drawn from it."""
    epochs: float = 1.0
    """Times each row is seen in one epoch of the run."""
    loss_weight: float = 1.0
    """Weight of its tokens in the loss."""

    def share(self, num_rows: int) -> SourceShare:
        """Its part in the mixture, given how many of its rows can be trained on."""
        return SourceShare(num_rows, self.weight, self.rows, self.epochs)


def list_sources(config: DataConfig) -> list[Source]:
    """Returns the sources of a run, the training ones first, each under a name of its own."""
    if config.name == "calls":
        folder = Path(str(files("loralab.data.calls")))
        return [
            _source(config, SourceConfig(path=str(folder / name), name="calls", format="openai"), part, "")
            for part, name in EMBEDDED.items()
        ]
    listed = config.sources or [SourceConfig(path=config.path)]
    keys = [f"data.sources[{i}].path" for i in range(len(listed))] if config.sources else ["data.path"]
    train = [_source(config, each, "train", key) for each, key in zip(listed, keys, strict=True)]
    held_out = [
        _source(config, SourceConfig(path=path), part, f"data.{part}_path")
        for part, path in (("val", config.val_path), ("test", config.test_path))
        if path is not None
    ]
    return list(_distinct([*train, *held_out]))


def mapped_columns(columns: ColumnsConfig) -> dict[str, str]:
    """The columns that the user mapped."""
    return {name: field for name, field in dataclasses.asdict(columns).items() if field is not None}


def _source(config: DataConfig, given: SourceConfig, part: str, key: str) -> Source:
    return Source(
        name=given.name or _name_of(given.path),
        part=part,
        key=key,
        path=given.path,
        form=given.format or config.format,
        columns=mapped_columns(given.columns or config.columns),
        prompt_template=given.prompt_template or config.prompt_template,
        encoding=given.encoding or config.encoding,
        subset=given.subset,
        split=given.split,
        revision=given.revision,
        weight=given.weight,
        rows=given.rows,
        epochs=given.epochs,
        loss_weight=given.loss_weight,
    )


def _name_of(path: Any) -> str:
    first = path if isinstance(path, str) else str(next(iter(path), "data"))
    name = first.rpartition("/")[2] if is_hub(first) else PurePath(first).name
    return name.split(".")[0].strip("*?[]") or "data"


def _distinct(sources: Sequence[Source]) -> Iterator[Source]:
    names = Counter(source.name for source in sources)
    seen: Counter[str] = Counter()
    for source in sources:
        seen[source.name] += 1
        number = f"_{seen[source.name]}" if names[source.name] > 1 else ""
        yield dataclasses.replace(source, name=f"{source.name}{number}")
