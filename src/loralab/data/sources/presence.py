"""Files that cannot be read, found by their names alone, before anything else is loaded."""

from collections.abc import Iterable, Iterator
from typing import Any

from loralab.config.data import BenchmarkConfig, DataConfig
from loralab.config.data_rules import is_path
from loralab.data.sources.hub import PREFIX, check_hub_name, is_hub
from loralab.data.sources.paths import expand_paths
from loralab.data.sources.reading import check_file
from loralab.errors import DataError

Place = tuple[str, Any, str]
"""A config key, the path that it holds, and the text encoding of the files there."""


def config_faults(config: DataConfig) -> list[str]:
    """Says of every path of a config that leads to no file why it does not."""
    return list(place_faults(_places(config)))


def place_faults(places: Iterable[Place]) -> Iterator[str]:
    """Yields why the files of each place cannot be read, as far as names and first bytes tell.

    What is no path at all is left to the rules of the config; the Hub is not asked.
    """
    for key, path, encoding in places:
        if not is_path(path):
            continue
        for each in [path] if isinstance(path, str) else path:
            try:
                _check(key, each if isinstance(path, str) else [each], encoding)
            except DataError as error:
                yield str(error)


def _check(key: str, path: str | list[str], encoding: str) -> None:
    if isinstance(path, str) and is_hub(path):
        check_hub_name(path.removeprefix(PREFIX), key)
        return
    for file in expand_paths(path, key):
        check_file(file, key, encoding)


def _places(config: DataConfig) -> Iterator[Place]:
    if config.name == "file":
        yield "data.path", config.path, config.encoding
        for number, source in enumerate(config.sources):
            yield f"data.sources[{number}].path", source.path, source.encoding or config.encoding
        yield "data.val_path", config.val_path, config.encoding
        yield "data.test_path", config.test_path, config.encoding
    for entry in config.contamination.benchmarks:
        given = entry if isinstance(entry, BenchmarkConfig) else BenchmarkConfig(path=entry)
        yield "data.contamination.benchmarks", given.path, given.encoding
