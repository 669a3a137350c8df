"""What differs between two configs, key by key."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from loralab.config.explanation import leaf_keys
from loralab.config.schema import TrainConfig


@dataclass(frozen=True)
class Change:
    """A key with another value than the run began with."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        """Says it in a line: `optim.lr: 0.001 in the run, 0.002 now`."""
        return f"{self.key}: {_word(self.before)} in the run, {_word(self.now)} now"


def find_changes(before: TrainConfig, now: TrainConfig) -> list[Change]:
    """Lists every key whose value differs, in the order of the schema."""
    pairs = [(key, attrgetter(key)(before), attrgetter(key)(now)) for key in leaf_keys(TrainConfig)]
    return [Change(key, old, new) for key, old, new in pairs if old != new]


def is_below(key: str, names: Iterable[str]) -> bool:
    """Says whether a key is one of the names or lies in a group that is."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def with_values(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Returns a config with other values of some keys; nothing is derived from them anew."""
    changed = copy.deepcopy(config)
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        setattr(attrgetter(group)(changed) if group else changed, name, value)
    return changed


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
