"""From configured files to examples ready to train on."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from loralab.config.schema import DataConfig
from loralab.data.conversations import load_conversations
from loralab.data.gate import Ledger, check_supervision, drop_over_length
from loralab.data.masking import Example, encode
from loralab.data.records import Conversation
from loralab.data.splits import random_split
from loralab.data.templating import render
from loralab.errors import DataError

EMBEDDED = {"train": "train.jsonl", "val": "validation.jsonl", "test": "test.jsonl"}


@dataclass(frozen=True)
class DataFile:
    """A file that rows came from, pinned by its content."""

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class PreparedSplit:
    """Examples of one split and what became of its rows."""

    examples: list[Example]
    ledger: Ledger


@dataclass(frozen=True)
class PreparedData:
    """Examples to train on, to validate on and to test on."""

    train: PreparedSplit
    val: PreparedSplit
    test: PreparedSplit
    files: list[DataFile]


def prepare_data(config: DataConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreparedData:
    """Reads, splits, renders, tokenizes and checks the rows that a config names.

    Args:
        config: The `data` group.
        tokenizer: A fast tokenizer with a chat template.
        seed: Seed of the held-out split.

    Raises:
        DataError: A file, a row or the whole cannot be used.
    """
    loaded = _load_embedded() if config.name == "calls" else _load_files(config)
    data_files = [
        DataFile(source, hashlib.sha256(Path(source).read_bytes()).hexdigest(), len(conversations))
        for source, conversations in loaded.values()
    ]
    rows = {split: conversations for split, (_, conversations) in loaded.items()}
    rows["train"] = rows["train"][: config.max_examples]
    rows = _hold_out(rows, config, seed)
    splits = {split: prepare_split(rows[split], config, tokenizer, split) for split in EMBEDDED}
    return PreparedData(**splits, files=data_files)


def prepare_split(
    conversations: Sequence[Conversation], config: DataConfig, tokenizer: PreTrainedTokenizerBase, split: str
) -> PreparedSplit:
    """Renders, tokenizes and checks the conversations of one split.

    Raises:
        DataError: The chat template does not fit, or the supervision gate stays closed.
    """
    rendered = []
    for conversation in conversations:
        try:
            rendered.append(render(tokenizer, conversation))
        except DataError as error:
            raise DataError(f"{conversation.source} row {conversation.row}: {error}") from error
    examples = encode(tokenizer, rendered, conversations)
    check_supervision(examples, tokenizer, split)
    return PreparedSplit(*drop_over_length(examples, config.max_length, config.max_dropped, split))


def _load_embedded() -> dict[str, tuple[str, list[Conversation]]]:
    loaded = {}
    for split, name in EMBEDDED.items():
        with as_file(files("loralab.data.calls") / name) as path:
            loaded[split] = (str(path), load_conversations(path, "openai", {}))
    return loaded


def _load_files(config: DataConfig) -> dict[str, tuple[str, list[Conversation]]]:
    columns = {name: field for name, field in dataclasses.asdict(config.columns).items() if field is not None}
    paths = {"train": config.path, "val": config.val_path, "test": config.test_path}
    loaded = {}
    for split, path in paths.items():
        if path is not None:
            try:
                loaded[split] = (path, load_conversations(Path(path), config.format, columns))
            except DataError as error:
                # The reader speaks of data.path; held-out files have keys of their own.
                key = "data.path" if split == "train" else f"data.{split}_path"
                raise DataError(str(error).replace("data.path=", f"{key}=", 1)) from error
    return loaded


def _hold_out(
    rows: dict[str, list[Conversation]], config: DataConfig, seed: int
) -> dict[str, list[Conversation]]:
    if {"val", "test"} <= rows.keys():
        return rows
    val_fraction = 0.0 if "val" in rows else config.val_fraction
    test_fraction = 0.0 if "test" in rows else config.test_fraction
    dealt = dataclasses.asdict(random_split(len(rows["train"]), val_fraction, test_fraction, seed))
    if not dealt["train"]:
        raise DataError("no training rows are left after holding out validation and test rows: add rows.")
    return {
        **{split: [rows["train"][row] for row in chosen] for split, chosen in dealt.items() if chosen},
        **{split: rows[split] for split in rows if split != "train"},
    }
