"""From configured files to examples ready to train on."""

import contextlib
import datetime
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.data.benchmarks import benchmark_sources
from loralab.data.cache import cache_key, flush, prune, remove, touch
from loralab.data.collecting import collect
from loralab.data.encoding import ExampleMaker, explain_unrendered
from loralab.data.gate import Ledger, LengthCount, check_lengths, check_supervision, make_ledger
from loralab.data.masking import Example
from loralab.data.mixing import SourceShare
from loralab.data.opening import source_files
from loralab.data.report import DataFile, DataReport
from loralab.data.source import PARTS, Source, list_sources
from loralab.data.sources import hash_file, hub_revision, is_hub
from loralab.data.store import ExampleStore, store_writer
from loralab.data.tally import Tally
from loralab.data.workers import explain_dead_worker, map_chunks
from loralab.errors import DataError
from loralab.runs.cache_folder import cache_dir

ROWS_PER_CHUNK = 256
REPORT_NAME = "report.json"
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, pa.ArrowException)
"""What opening prepared data raises where files are cut off, empty or missing."""
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Faults of the folder that data is prepared in, which another folder mends."""


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


def prepare_data(config: DataConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreparedData:
    """Reads, cleans, splits, renders, tokenizes and checks the rows that a config names.

    With `data.cache` the result is kept, and found again under a hash of everything that shapes it; the
    results that were not used for longest make room for it (`cache.prune`).

    Args:
        config: The `data` group.
        tokenizer: A fast tokenizer with a chat template.
        seed: Seed of the held-out split.

    Raises:
        DataError: A file, a row or the whole cannot be used.
    """
    sources = list_sources(config)
    files = [file for source in (*sources, *benchmark_sources(config)) for file in _pin(source)]
    root = cache_dir() / "prepared" if config.cache else Path(tempfile.mkdtemp(prefix="loralab-"))
    folder = root / cache_key(config, tokenizer, files, seed, datetime.date.today())
    try:
        # Before anything is looked at, so that no other process takes the folder away as unused.
        touch(folder)
        if (folder / REPORT_NAME).is_file():
            with contextlib.suppress(*DAMAGED):
                return _open(folder, sources, files)
            remove(folder)
        with explain_dead_worker(config.num_workers):
            _build(folder, config, sources, tokenizer, seed)
        prune(root, folder, time.time())
        return _open(folder, sources, files)
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
            f"prepared data cannot be kept in {folder.parent}: {error.strerror or error}. Give another "
            "folder in LORALAB_CACHE, or use data.cache=false."
        ) from None
    try:
        collected = collect(sources, config, seed, work)
        report = DataReport(collected.reports, collected.splits, {}, benchmarks=collected.benchmarks)
        weights, counts = [source.loss_weight for source in sources], [LengthCount() for _ in sources]
        for part in PARTS:
            index = collected.overlap_index if part == "train" else None
            maker = ExampleMaker(collected.corpus, tokenizer, config, weights, index)
            _write_split(work / f"{part}.arrow", part, maker, collected.parts[part], (report, counts))
        _close_sources(report, counts, [ExampleStore(work / f"{part}.arrow") for part in PARTS])
        if config.privacy.action != "none":
            report.mask_quotes(config.privacy.kinds)
        (work / REPORT_NAME).write_text(json.dumps(report.to_dict()), encoding="utf-8")
        (work / "corpus.arrow").unlink()
        if config.cache:
            flush(work)
        _move_into_place(work, folder)
    except OSError as error:
        other = (
            f" Make room there, or give another folder in {'LORALAB_CACHE' if config.cache else 'TMPDIR'}."
        )
        raise DataError(
            f"prepared data cannot be written to {folder.parent}: {error.strerror or error}."
            f"{other if error.errno in NO_PLACE else ''}"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _move_into_place(work: Path, folder: Path) -> None:
    """Puts a finished folder under its name, unless another process was faster; a damaged one gives way."""
    try:
        os.replace(work, folder)
    except OSError:
        if (folder / REPORT_NAME).is_file():
            return
        remove(folder)
        try:
            os.replace(work, folder)
        except OSError:
            if not (folder / REPORT_NAME).is_file():
                raise


def _write_split(
    path: Path,
    part: str,
    maker: ExampleMaker,
    numbers: NDArray[np.int64],
    accounts: tuple[DataReport, Sequence[LengthCount]],
) -> None:
    """Writes the examples of one split and enters what became of its rows into the accounts.

    Args:
        path: The file to write.
        part: train, val or test.
        maker: Makes the examples.
        numbers: The rows of the split.
        accounts: The report, and the lengths of each source so far.
    """
    config, (report, counts) = maker.config, accounts
    chunks = chunks_by_source(numbers, maker.corpus.sources)
    count, faults, rendered = LengthCount(), dict[str, list[str]](), Tally()
    with store_writer(path) as write:
        for chunk, result in zip(chunks, map_chunks(maker, chunks, config.num_workers), strict=True):
            source = int(maker.corpus.sources[chunk[0]])
            report.sources[source].splits.setdefault(part, Tally()).add(result.tally)
            counts[source].add(result.count)
            rendered.add(result.tally)
            count.add(result.count)
            report.add_overlaps(result.overlaps)
            for fault, places in result.faults.items():
                faults.setdefault(fault, []).extend(places)
            if result.columns is not None:
                write(result.columns)
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


def chunks_by_source(numbers: NDArray[np.int64], sources: NDArray[np.int16]) -> list[NDArray[np.int64]]:
    """Cuts the numbers of rows into chunks, in order, each with rows of one source.

    Args:
        numbers: [rows], at best with the rows of a source side by side.
        sources: [all rows] the source of every row of the corpus.
    """
    changes = np.flatnonzero(np.diff(sources[numbers])) + 1
    return [
        run[at : at + ROWS_PER_CHUNK]
        for run in np.split(numbers, changes)
        for at in range(0, len(run), ROWS_PER_CHUNK)
    ]


def _close_sources(report: DataReport, counts: Sequence[LengthCount], stores: Sequence[ExampleStore]) -> None:
    """Enters the ledger of each source over all splits."""
    sources = np.concatenate([store.sources for store in stores])
    lengths = np.concatenate([store.lengths for store in stores])
    supervised = np.concatenate([store.supervised for store in stores])
    for number, (source, count) in enumerate(zip(report.sources, counts, strict=True)):
        own = sources == number
        source.ledger = make_ledger(count, lengths[own], supervised[own])


def _refuse_unrendered(tally: Tally, part: str, config: DataConfig) -> None:
    messages = explain_unrendered(tally, part)
    if messages and config.on_error != "skip":
        remedy = "Mend the rows, or leave such rows out with data.on_error=skip."
        raise DataError(f"{'; '.join(messages)}. {remedy}")


def _open(folder: Path, sources: Sequence[Source], files: list[DataFile]) -> PreparedData:
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
    )
