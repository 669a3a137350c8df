"""Rows as a model would see them: tokens, what is learned of them, and what training would refuse."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.config.model import ModelConfig
from loralab.data.chat_templates import set_chat_template
from loralab.data.corpus import Corpus
from loralab.data.encoding import ExampleMaker, explain_unrendered
from loralab.data.gate import Ledger, LengthCount, check_lengths, check_supervision, make_ledger
from loralab.data.intake import BAD_ANSWER, NO_ANSWER, to_supervised
from loralab.data.prepare import chunks_by_source
from loralab.data.privacy import quoted_kinds
from loralab.data.records import LabelledConversation, Record
from loralab.data.store import ExampleStore, store_writer
from loralab.data.tally import Tally, describe_removed
from loralab.data.validity import is_prompt_only
from loralab.data.workers import map_chunks
from loralab.errors import DataError, ModelError, did_you_mean
from loralab.model.load import quiet_libraries
from loralab.model.tokenizer import load_tokenizer

ROWS_PER_CHUNK = 256
WITHOUT_ANSWER = "without_answer"
"""The check that a row fails when it has nothing to learn."""
EMBEDDED = "embedded"
"""Name of the tokenizer of the model that comes with the package."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
ALLOWED = f"Allowed: a folder with tokenizer.json, a Hub name such as owner/name, or {EMBEDDED}."
"""What `--tokenizer` takes."""


@dataclass(frozen=True)
class TokenAccount:
    """What became of the rows on the way to tokens."""

    rows: int
    """Rows that were looked at."""
    tally: Tally
    """The same rows, and those left out: without an answer, by the template or by the token limits."""
    by_source: dict[int, Tally]
    """The same for each source with such rows, by its number."""
    store: ExampleStore
    """The examples."""
    ledger: Ledger
    """Lengths and truncation."""
    lengths: list[int]
    """Tokens of every row before any was cut."""
    refusals: list[str]
    """Why training on these rows would not start; empty where it would."""


class _Learned(Corpus):
    """The rows of a corpus as supervised fine-tuning learns them: of a pair the preferred answer."""

    def records(self, numbers: NDArray[np.int64]) -> list[Record]:
        return [to_supervised(record) for record in super().records(numbers)]


def open_tokenizer(name: str, chat_template: str | None) -> PreTrainedTokenizerBase:
    """Loads a tokenizer and gives it its chat template.

    Args:
        name: A folder, which needs no model in it; a Hub name; or `embedded`.
        chat_template: `data.chat_template`.

    Raises:
        ModelError: It cannot be loaded, is no fast tokenizer, or has no chat template.
    """
    if not name.strip():
        raise ModelError(f"--tokenizer is empty. {ALLOWED}")
    quiet_libraries()
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        tokenizer = _open_folder(folder)
    else:
        is_embedded = name == EMBEDDED and not folder.exists()
        if not is_embedded:
            _check_tokenizer_name(name)
        try:
            tokenizer = load_tokenizer(ModelConfig(path=None if is_embedded else name))
        except ModelError as error:
            raise ModelError(f"--tokenizer {name!r} {_explain_failure(error)} {ALLOWED}") from error
    set_chat_template(tokenizer, chat_template)
    return tokenizer


def count_tokens(
    corpus: Corpus,
    alive: NDArray[np.int64],
    tokenizer: PreTrainedTokenizerBase,
    config: DataConfig,
    folder: Path,
) -> TokenAccount:
    """Renders and tokenizes rows as training does, and makes the checks that come before it.

    Args:
        corpus: The rows.
        alive: The numbers of those to look at.
        tokenizer: With its chat template.
        config: What to supervise and how long examples may be.
        folder: Where the examples may lie.
    """
    by_source = {
        int(number): Tally(int(rows))
        for number, rows in zip(*np.unique(corpus.sources[alive], return_counts=True), strict=True)
    }
    learned = _with_answers(corpus, alive, by_source, quoted_kinds(config.privacy))
    view = _Learned(corpus.path, corpus.files, corpus.sources, corpus.file_numbers, corpus.rows)
    maker = ExampleMaker(view, tokenizer, config, [1.0] * (int(corpus.sources.max(initial=0)) + 1))
    count, faults = LengthCount(), dict[str, list[str]]()
    chunks = chunks_by_source(learned, corpus.sources)
    path = folder / "examples.arrow"
    with store_writer(path) as write:
        for chunk, made in zip(chunks, map_chunks(maker, chunks, config.num_workers), strict=True):
            by_source[int(corpus.sources[chunk[0]])].add(Tally(0, made.tally.removed))
            count.add(made.count)
            for fault, places in made.faults.items():
                faults.setdefault(fault, []).extend(places)
            if made.columns is not None:
                write(made.columns)
    store, tally = ExampleStore(path), Tally()
    for each in by_source.values():
        tally.add(each)
    unrendered = explain_unrendered(tally, "inspected") if config.on_error == "raise" else []
    return TokenAccount(
        rows=tally.rows,
        tally=tally,
        by_source=by_source,
        store=store,
        ledger=make_ledger(count, store.lengths, store.supervised),
        lengths=count.lengths,
        refusals=[*unrendered, *_refusals(faults, count, len(store), config)],
    )


def _with_answers(
    corpus: Corpus, alive: NDArray[np.int64], by_source: Mapping[int, Tally], kinds: Sequence[str]
) -> NDArray[np.int64]:
    """Returns the rows with an answer to learn and enters the others in the tally of their source."""
    chosen: list[int] = []
    for start in range(0, len(alive), ROWS_PER_CHUNK):
        numbers = alive[start : start + ROWS_PER_CHUNK]
        records = corpus.records(numbers)
        for number, record in zip(numbers, records, strict=True):
            if reason := _explain_no_answer(record):
                removed = describe_removed(record, reason, kinds)
                by_source[int(corpus.sources[number])].remove(WITHOUT_ANSWER, removed)
            else:
                chosen.append(int(number))
    return np.array(chosen, np.int64)


def _explain_no_answer(record: Record) -> str:
    """Returns why there is nothing to learn of a record; empty where there is."""
    if isinstance(record, LabelledConversation) and not record.label:
        return BAD_ANSWER
    return NO_ANSWER if is_prompt_only(record) else ""


def _refusals(
    faults: dict[str, list[str]], count: LengthCount, num_examples: int, config: DataConfig
) -> list[str]:
    max_dropped = 0.0 if config.over_length == "raise" else config.max_dropped
    messages = [] if num_examples or count.lengths else ["no row gives an example"]
    try:
        check_supervision(faults, num_examples, "inspected")
    except DataError as error:
        messages.append(str(error))
    try:
        check_lengths(count, num_examples, (config.max_length, max_dropped), "inspected")
    except DataError as error:
        messages.append(str(error))
    return messages


def _check_tokenizer_name(name: str) -> None:
    """Refuses what can be neither a folder nor a Hub name."""
    path = Path(name).expanduser()
    if path.is_dir():
        return
    if path.is_file():
        raise ModelError(f"--tokenizer {name!r} is a file. {ALLOWED}")
    if not HUB_NAME.fullmatch(name):
        siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ModelError(
            f"--tokenizer {name!r} is not a folder.{did_you_mean(path.name, siblings)} {ALLOWED}"
        )
    if "/" not in name and (hint := did_you_mean(name, [EMBEDDED])):
        raise ModelError(f"--tokenizer {name!r} is unknown.{hint} {ALLOWED}")


def _explain_failure(error: ModelError) -> str:
    """Says why a tokenizer did not load, in the words of this option: the model's own name other keys."""
    if "from the Hugging Face Hub" in str(error):
        return (
            "is not on the Hugging Face Hub, is closed to this account (`hf auth login`), or the Hub cannot "
            "be reached."
        )
    return f"cannot be used: {error}"


def _open_folder(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"--tokenizer {str(folder)!r} holds no tokenizer that loads. {ALLOWED}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"--tokenizer {str(folder)!r} has no tokenizer.json, which label spans need.")
    return tokenizer
