"""What the words of `loralab model quant-report` ask for."""

import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from loralab.cli.request import Request, make_request
from loralab.config.explanation import explain_type
from loralab.config.model import ModelConfig, QuantConfig
from loralab.config.quant_rules import OWNERS
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.config.validate import CHOICES, validate_train
from loralab.errors import ConfigError, did_you_mean
from loralab.evaluation.quantization import FULL_PRECISION

EMBEDDED = "embedded"
"""Name of the model that comes with the package."""
KEYS = {
    "model": ("path", "revision", "attention", "trust_remote_code"),
    "quant": ("double_quant", "compute_dtype", "storage_dtype", "skip_modules", "int8_threshold"),
    "trainer": ("accelerator", "precision", "threads"),
}
"""The options of each group that the command reads."""
DATA_COMMAND = "inspect --tokenizer"
"""The data command that reads rows in the same way."""


@dataclass(frozen=True)
class QuantRequest:
    """What to compare, and on which rows."""

    model: ModelConfig
    quants: list[QuantConfig]
    """The schemes in their order; full precision first where it was added for comparison."""
    trainer: TrainerConfig
    """Where it runs and in which dtype."""
    data: Request | None
    """Rows to measure perplexity on."""


@dataclass
class _Sorted:
    """The words by what they belong to."""

    groups: dict[str, dict[str, Any]] = field(default_factory=lambda: {group: {} for group in KEYS})
    data: list[str] = field(default_factory=list)


def make_quant_request(words: Sequence[str], data: str | None, schemes: str) -> QuantRequest:
    """Checks the words of the command.

    Args:
        words: KEY=VALUE as the user typed them.
        data: A file, folder, glob or `hub:owner/name`.
        schemes: Names of the group `quant`, with commas between them.

    Raises:
        ConfigError: A key, a value or a scheme is wrong.
    """
    sorted_words, names = _sort(words), _scheme_names(schemes)
    if sorted_words.data and data is None:
        raise ConfigError(f"{sorted_words.data[0]} is about rows. Name them with --data PATH.")
    if data is not None and FULL_PRECISION not in names:
        names.insert(0, FULL_PRECISION)
    groups = sorted_words.groups
    model = replace(ModelConfig(), **groups["model"])
    trainer = replace(TrainerConfig(), **groups["trainer"])
    for key in groups["quant"]:
        owners = OWNERS.get(key, ("nf4", "fp4"))
        if not set(owners) & set(names):
            raise ConfigError(
                f"quant.{key} has no effect with --schemes {schemes}; it belongs to {', '.join(owners)}."
            )
    quants = [_quant(name, groups["quant"]) for name in names]
    for quant in quants:
        validate_train(TrainConfig(model=model, quant=quant, trainer=trainer))
    request = None if data is None else make_request([data], sorted_words.data, DATA_COMMAND)
    return QuantRequest(model, quants, trainer, request)


def _scheme_names(schemes: str) -> list[str]:
    known = [name for name in CHOICES["quant.name"] if name is not None]
    names = [name.strip() for name in schemes.split(",") if name.strip()]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"--schemes: {name!r} is unknown.{hint} Allowed: {', '.join(known)}.")
        if names.count(name) > 1:
            raise ConfigError(f"--schemes names {name} twice.")
    if not names:
        raise ConfigError(f"--schemes is empty. Allowed: {', '.join(known)}.")
    return names


def _quant(name: str, given: dict[str, Any]) -> QuantConfig:
    """Takes the options that a scheme reads; the others are for the schemes beside it."""
    own = {key: value for key, value in given.items() if name in OWNERS.get(key, (name,))}
    return QuantConfig(name=name, **own)


def _sort(words: Sequence[str]) -> _Sorted:
    found = _Sorted()
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is no option. Options are written KEY=VALUE; rows are --data PATH.")
        if key == "model":
            key, text = "model.path", "null" if text == EMBEDDED else text
        group, _, name = key.partition(".")
        if group not in KEYS:
            found.data.append(word)
            continue
        if name not in KEYS[group]:
            known = ["model", *(f"{group}.{name}" for group, names in KEYS.items() for name in names)]
            raise ConfigError(f"{key} is unknown here.{did_you_mean(key, known)} Known: {', '.join(known)}.")
        found.groups[group][name] = _typed(group, name, text)
    return found


def _typed(group: str, name: str, text: str) -> Any:
    """Reads a value as YAML and checks its type against the group."""
    kind = typing.get_type_hints(type(getattr(TrainConfig(), group)))[name]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if kind is float and type(value) is int:
        value = float(value)
    is_text = kind in (str, str | None)
    if is_text and value is not None and not isinstance(value, str):
        value = text  # a folder called 7 is a name
    is_list = typing.get_origin(kind) is list
    fits = (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
        if is_list
        else isinstance(value, kind)
    )
    if not fits:
        key = f"{group}.{name}"
        raise ConfigError(explain_type(TrainConfig, key, text) or f"{key}={text} is not allowed.")
    return value
