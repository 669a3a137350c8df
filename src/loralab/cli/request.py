"""What the words of a command ask for: paths, and options of the `data` group."""

import dataclasses
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loralab.config.data import DataConfig, SourceConfig
from loralab.config.explanation import leaf_keys
from loralab.config.load import load_data
from loralab.data.source import Source, list_sources
from loralab.data.sources import is_hub
from loralab.data.sources.presence import place_faults
from loralab.errors import ConfigError

PLACES = ("name", "path", "sources", "val_path", "test_path")
"""Keys of the group that the paths of the command stand for."""
AS_THEY_ARE = (
    "quality.min_chars=null",
    "quality.role_order=false",
    "quality.max_garble=null",
    "privacy.action=none",
)
"""Options of the commands that write rows: only what the user asks for is left out or changed."""
READING = (
    "format", "columns", "prompt_template", "encoding", "max_examples", "num_workers", "quality", "privacy",
)  # fmt: skip
TOKENS = ("supervise", "chat_template", "max_length", "over_length", "max_dropped", "preference", "on_error")
TOKEN_LIMITS = ("quality.min_tokens", "quality.max_tokens")
EFFECTIVE: dict[str, tuple[str, ...]] = {
    "inspect": (*READING, "on_error", "dedup"),
    "inspect --tokenizer": (*READING, "dedup", *TOKENS),
    "validate": READING,
    "convert": (*READING, "on_error"),
    "split": (*READING, "on_error", "dedup", "split", "val_fraction", "test_fraction"),
    "dedup": (*READING, "on_error", "dedup"),
}
"""The options, or groups of them, that change what a command does."""
KEY = "PATH"
"""How messages name the argument that a file stands for."""


@dataclass(frozen=True)
class Request:
    """The rows to work on and how to read and check them."""

    sources: tuple[Source, ...]
    """One for each path."""
    config: DataConfig
    """The options."""
    idle: tuple[str, ...] = ()
    """The options given that change nothing here."""


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts the words of a command into paths and options KEY=VALUE of the `data` group.

    A word with `=` is an option, unless its key is none and a file of that name is there.
    """
    known = set(leaf_keys(DataConfig))
    paths: list[str] = []
    options: list[str] = []
    for word in words:
        key, equals, _ = word.removeprefix("data.").partition("=")
        is_option = equals and (key in known or not (Path(word).exists() or glob.glob(word)))
        (options if is_option and not is_hub(word) else paths).append(word)
    return paths, options


def make_request(paths: Sequence[str], options: Sequence[str], command: str) -> Request:
    """Checks the options and describes the sources.

    Args:
        paths: Files, folders, globs or `hub:owner/name`.
        options: Words KEY=VALUE as the user typed them.
        command: A key of `EFFECTIVE`.

    Raises:
        ConfigError: There is no path, or an option is wrong.
    """
    if not paths:
        raise ConfigError("PATH is missing. Give a file, a folder, a glob or hub:owner/name.")
    keys = [option.removeprefix("data.").partition("=")[0] for option in options]
    for key, option in zip(keys, options, strict=True):
        if key in PLACES:
            raise ConfigError(f"{option}: name the rows as PATH, without a key.")
    defaults = () if command.partition(" ")[0] in ("inspect", "validate") else AS_THEY_ARE
    unseen = ["path=PATH", *defaults]

    def look(config: DataConfig) -> Iterator[str]:
        """Yields why files cannot be read; `validate` lists that itself, beside the faults of the others."""
        return place_faults((KEY, path, config.encoding) for path in paths if command != "validate")

    try:
        config = load_data([*unseen, *options], look)
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix(f"{' '.join(unseen)} ")) from None
    config.path, config.sources = None, [SourceConfig(path=path) for path in paths]
    sources = tuple(dataclasses.replace(source, key=KEY) for source in list_sources(config))
    return Request(sources, config, tuple(key for key in keys if not _has_effect(key, command)))


def _has_effect(key: str, command: str) -> bool:
    if key in TOKEN_LIMITS and "supervise" not in EFFECTIVE[command]:
        return False
    return key in EFFECTIVE[command] or key.partition(".")[0] in EFFECTIVE[command]
