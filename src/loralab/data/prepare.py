"""From configured files to examples ready to train on."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.data.cache import cache_dir, cache_key
from loralab.data.collecting import collect
from loralab.data.encoding import ExampleMaker
from loralab.data.gate import Ledger, LengthCount, check_lengths, check_supervision, make_ledger
from loralab.data.masking import Example
from loralab.data.mixing import SourceShare
from loralab.data.opening import source_files
from loralab.data.report import DataFile, DataReport
from loralab.data.source import PARTS, Source, list_sources
from loralab.data.sources import expand_paths, hash_file, hub_revision, is_hub
from loralab.data.store import SCHEMA, ExampleStore
from loralab.data.tally import Tally
from loralab.data.workers import map_chunks
from loralab.errors import DataError

ROWS_PER_CHUNK = 256
REPORT_NAME = "report.json"
BENCHMARKS = "data.contamination.benchmarks"


@dataclass(frozen=True)
class PreparedSplit:
    """Examples of one split and what became of its rows."""

    examples: Sequence[Example]
    """Memory-mapped examples, in the order of their rows."""
    ledger: Ledger
    """Lengths and truncation."""


@dataclass(frozen=True)
class PreparedData:
    """Examples to train on, to validate on and to test on."""

    train: PreparedSplit
    val: PreparedSplit
    test: PreparedSplit
    files: list[DataFile]
    """Where the rows came from."""
    report: DataReport
    """What became of every row."""
    source_names: list[str] = field(default_factory=lambda: ["data"])
    """Name of each source; `Example.source` counts in it."""
    shares: list[SourceShare] = field(default_factory=list)
    """Part of each training source in the mixture; empty where every example is seen once."""
    folder: Path | None = None
    """Where the examples are kept for the next run; None where they are not."""


def prepare_data(config: DataConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreparedData:
    """Reads, cleans, splits, renders, tokenizes and checks the rows that a config names.

    With `data.cache` the result is kept, and found again under a hash of everything that shapes it.

    Args:
        config: The `data` group.
        tokenizer: A fast tokenizer with a chat template.
        seed: Seed of the held-out split.

    Raises:
        DataError: A file, a row or the whole cannot be used.
    """
    sources = list_sources(config)
    benchmarks = [path for each in config.contamination.benchmarks for path in expand_paths(each, BENCHMARKS)]
    files = [file for source in sources for file in _pin(source)]
    files += [DataFile(str(path), hash_file(path, BENCHMARKS)) for path in benchmarks]
    root = cache_dir() / "prepared" if config.cache else Path(tempfile.mkdtemp(prefix="loralab-"))
    folder = root / cache_key(config, tokenizer, files, seed)
    try:
        if not (folder / REPORT_NAME).is_file():
            _build(folder, config, sources, tokenizer, seed)
        return _open(folder, config, sources, files)
    finally:
        if not config.cache:
            # The mapped files stay readable until the process ends.
            shutil.rmtree(root, ignore_errors=True)


def _pin(source: Source) -> list[DataFile]:
    if is_hub(source.path):
        name = source.path.partition(":")[2]
        return [DataFile(source.path, hub_revision(name, source.revision, source.key))]
    return [DataFile(str(path), hash_file(path, source.key)) for path in source_files(source)]


def _build(
    folder: Path, config: DataConfig, sources: Sequence[Source], tokenizer: PreTrainedTokenizerBase, seed: int
) -> None:
    """Prepares into a temporary folder and moves it into place in one step."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    except OSError as error:
        raise DataError(
            f"prepared data cannot be kept in {folder.parent}: {error.strerror}. Give another folder in "
            "LORALAB_CACHE, or use data.cache=false."
        ) from None
    try:
        collected = collect(sources, config, seed, work)
        report = DataReport(collected.reports, collected.splits, ledgers={})
        weights = [source.loss_weight for source in sources]
        for part in PARTS:
            index = collected.overlap_index if part == "train" else None
            maker = ExampleMaker(collected.corpus, tokenizer, config, weights, index)
            _write_split(work / f"{part}.arrow", part, maker, collected.parts[part], report)
        (work / REPORT_NAME).write_text(json.dumps(report.to_dict()), encoding="utf-8")
        (work / "corpus.arrow").unlink()
        _move_into_place(work, folder)
    except OSError as error:
        raise DataError(
            f"prepared data cannot be written to {folder.parent}: {error.strerror}. Make room there, or give "
            "another folder in LORALAB_CACHE."
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _move_into_place(work: Path, folder: Path) -> None:
    """Puts a finished folder under its name, unless another process was faster; a damaged one gives way."""
    if (folder / REPORT_NAME).is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(work, folder)
    except OSError:
        if not (folder / REPORT_NAME).is_file():
            raise


def _write_split(
    path: Path, part: str, maker: ExampleMaker, numbers: NDArray[np.int64], report: DataReport
) -> None:
    """Writes the examples of one split and enters what became of its rows into the report."""
    config = maker.config
    chunks = [numbers[at : at + ROWS_PER_CHUNK] for at in range(0, len(numbers), ROWS_PER_CHUNK)]
    count, faults, rendered = LengthCount(), dict[str, list[str]](), Tally()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for result in map_chunks(maker, chunks, config.num_workers):
            rendered.add(result.tally)
            count.add(result.count)
            report.add_overlaps(result.overlaps)
            for fault, places in result.faults.items():
                faults.setdefault(fault, []).extend(places)
            if result.columns is not None:
                writer.write_batch(result.columns)
    _refuse_unrendered(rendered, part, config)
    report.splits[part].add(Tally(0, rendered.removed))
    store = ExampleStore(path)
    check_supervision(faults, len(store), part)
    max_dropped = 0.0 if config.over_length == "raise" else config.max_dropped
    check_lengths(count, len(store), (config.max_length, max_dropped), part)
    if not len(store):
        names = ", ".join(maker.corpus.files)
        first = next((row.reason for each in rendered.removed.values() for row in each.examples), "")
        raise DataError(
            f"no {part} rows are left of {names}: left out {rendered.describe()}, such as: {first}"
        )
    report.ledgers[part] = make_ledger(count, store.lengths, store.supervised)


def _refuse_unrendered(tally: Tally, part: str, config: DataConfig) -> None:
    removals = tally.removed.get("chat_template")
    if removals is None or config.on_error == "skip":
        return
    first = removals.examples[0]
    more = f" (and {removals.count - 1} more {part} rows)" if removals.count > 1 else ""
    remedy = " Mend the rows, or leave such rows out with data.on_error=skip."
    raise DataError(f"{first.file} {first.place}: {first.reason}{more}.{remedy}")


def _open(folder: Path, config: DataConfig, sources: Sequence[Source], files: list[DataFile]) -> PreparedData:
    report = DataReport.from_dict(json.loads((folder / REPORT_NAME).read_text(encoding="utf-8")))
    stores = {part: ExampleStore(folder / f"{part}.arrow") for part in PARTS}
    splits = {part: PreparedSplit(store, report.ledgers[part]) for part, store in stores.items()}
    counts = np.bincount(stores["train"].sources, minlength=len(sources))
    return PreparedData(
        **splits,
        files=files,
        report=report,
        source_names=[source.name for source in sources],
        shares=[s.share(int(n)) for s, n in zip(sources, counts, strict=True) if s.part == "train"],
        folder=folder if config.cache else None,
    )
