"""The door between Hydra and the package: the only module that touches OmegaConf."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loralab.config.data import BenchmarkConfig, ColumnsConfig, DataConfig, PromptTemplateConfig, SourceConfig
from loralab.config.explanation import (
    NAMELESS_CHOICE,
    UNWRITABLE,
    dotted_keys,
    explain_form,
    explain_group,
    explain_syntax,
    explain_type,
    explain_unwritable,
    holds_any_key,
    leaf_keys,
    refused_value,
)
from loralab.config.folder import find_conf
from loralab.config.schema import EvaluateConfig, TrainConfig
from loralab.config.typed_rules import typed_faults
from loralab.config.validate import validate_evaluate, validate_train
from loralab.errors import (
    EXIT_INTERRUPTED,
    EXIT_USER,
    AlreadyTold,
    ConfigError,
    Interrupted,
    LoralabError,
    did_you_mean,
    heard,
    leave,
)

Config = TypeVar("Config", TrainConfig, EvaluateConfig)
Look = Callable[[DataConfig], Iterable[str]]

JOB = "LORALAB_JOB"
"""Where processes that a job of a multirun starts find its number."""


def register_schemas() -> None:
    """Puts the root dataclasses where the defaults lists in `conf/` find them."""
    store, train = ConfigStore.instance(), OmegaConf.structured(TrainConfig)
    train.lora.alpha = train.optim.lr = None  # the default instance has filled them in
    patterns = (train.lora.rank_pattern, train.lora.alpha_pattern, train.optim.lr_pattern)
    for open_mapping in (*patterns, train.model.architecture):
        OmegaConf.set_struct(open_mapping, False)
    store.store(name="train_schema", node=train)
    store.store(name="evaluate_schema", node=EvaluateConfig)


def load_train(config: DictConfig, look: Look | None = None, words: Sequence[str] = ()) -> TrainConfig:
    """Turns Hydra's composed config into a checked dataclass with every derived value filled in.

    Args:
        config: What Hydra composed.
        look: Finds the faults of the files that the config names.
        words: What was typed, where not Hydra has read it.

    Raises:
        ConfigError: One message with every fault found.
    """
    typed = cast(TrainConfig, _to_object(config, TrainConfig))
    more = typed_faults(typed, [*task_overrides(), *words])
    validate_train(typed, [*(look(typed.data) if look else ()), *more])
    return typed


def compose_train(overrides: Sequence[str]) -> TrainConfig:
    """Composes the config of `train.py` from what a user would type after it, outside of a run.

    Args:
        overrides: Words such as `model=llama3_8b` and `lora.r=12`.

    Raises:
        ConfigError: A word is wrong, or `conf/` is nowhere to be found.
    """
    register_schemas()
    conf = str(find_conf().resolve())
    try:
        with initialize_config_dir(config_dir=conf, version_base="1.3"):
            return load_train(compose("train", overrides=list(overrides)), None, overrides)
    except (ConfigCompositionException, OverrideParseException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, TrainConfig)) from error
    except ValueError as error:
        if NAMELESS_CHOICE not in str(error):
            raise
        raise ConfigError(explain_group(overrides, _groups(TrainConfig))) from error


def load_evaluate(config: DictConfig) -> EvaluateConfig:
    """Turns Hydra's composed config of `evaluate.py` into a checked dataclass."""
    typed = cast(EvaluateConfig, _to_object(config, EvaluateConfig))
    validate_evaluate(typed)
    return typed


def load_data(overrides: Sequence[str], look: Look | None = None) -> DataConfig:
    """Builds a checked `data` group from overrides such as `columns.prompt=question`, without Hydra.

    Args:
        overrides: Keys of the group, with or without `data.` in front; `path` must be among them.
        look: As in `load_train`.

    Raises:
        ConfigError: One message with every fault found.
    """
    known = set(leaf_keys(DataConfig))
    words = [word.removeprefix("data.") for word in overrides]
    for word in words:
        key = word.partition("=")[0]
        if key not in known or "=" not in word:
            form = "" if "=" in word else " Options are written KEY=VALUE."
            raise ConfigError(f"data.{key} is unknown.{did_you_mean(key, known)}{form}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.from_dotlist(words))
        data = cast(DataConfig, OmegaConf.to_object(merged))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        key = str(getattr(error, "full_key", None) or "")
        typed = next((word.partition("=")[2] for word in words if word.partition("=")[0] == key), "")
        wrong = explain_type(DataConfig, key, typed or refused_value(str(error)), "data.") if key else ""
        raise ConfigError(wrong or f"{' '.join(overrides)}: {_first_line(error)}") from error
    data.name = "file"
    _read_entries(data)
    validate_train(TrainConfig(data=data), look(data) if look else ())
    return data


def to_yaml(config: TrainConfig | EvaluateConfig) -> str:
    """Writes a config as YAML that `read_yaml` reads back."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def read_yaml(path: Path, schema: type[Config]) -> Config:
    """Reads a config that `to_yaml` wrote, checked against its schema.

    Raises:
        ConfigError: The file is missing or does not match the schema.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(path))
        return cast(Config, _to_object(cast(DictConfig, merged), schema))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing: the folder is not a run of loralab.") from error
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {_first_line(error)}") from error


def task_overrides() -> list[str]:
    """What the user typed for this job; empty outside Hydra."""
    if not HydraConfig.initialized():
        return []
    return list(HydraConfig.get().overrides.task)


def job_number() -> int | None:
    """The place of this job in a multirun, from 0; None outside a multirun."""
    if os.environ.get(JOB):
        return int(os.environ[JOB])
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return HydraConfig.get().job.num


@contextlib.contextmanager
def exit_codes(schema: type[TrainConfig] | type[EvaluateConfig]) -> Iterator[None]:
    """Turns every error that a user can mend into a short message and exit code 2, an interrupt into 130.

    Args:
        schema: The command's root dataclass, for close matches of mistyped keys.
    """
    # Hydra would print its own text; with this set it hands the exception on.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with heard():
            yield
    except Interrupted as error:
        leave(EXIT_INTERRUPTED, str(error))
    except AlreadyTold:
        sys.exit(EXIT_USER)
    except LoralabError as error:
        leave(EXIT_USER, f"error: {error}")
    except (ConfigCompositionException, OverrideParseException, OmegaConfBaseException) as error:
        leave(EXIT_USER, f"error: {explain(error, schema)}")
    except ValueError as error:
        if NAMELESS_CHOICE not in str(error):
            raise
        leave(EXIT_USER, f"error: {explain_group(sys.argv[1:], _groups(schema))}")
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        leave(EXIT_USER, explain_unwritable(error))
    except KeyboardInterrupt:
        leave(EXIT_INTERRUPTED, "interrupted")


def explain(error: Exception, schema: type[TrainConfig] | type[EvaluateConfig]) -> str:
    """Says in one line what is wrong with a composition, with the closest valid choice."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        options = list(error.options or [])
        return f"{group}={choice} is unknown.{did_you_mean(choice, options)} Known: {', '.join(options)}."
    if isinstance(error, OverrideParseException):
        return explain_syntax(error.override or "", _first_line(error))
    text = f"{error}\n{error.__cause__ or ''}"
    if form := explain_form(text):
        return form
    return _explain_value(error, text, schema)


def _explain_value(error: Exception, text: str, schema: type) -> str:
    """Says which key is unknown, or what the value of a key should be."""
    keys = {*leaf_keys(schema), *_groups(schema)}
    merged = re.search(r"Error merging override [+~]*([^=\s]+)=(.*)", text)
    full = re.findall(r"full_key: (\S+)", text)
    named = [*re.findall(r"Could not (?:override|append) '([^']+)'", text), *full]
    for key in [*named, *(merged.groups()[:1] if merged else ())]:
        if key.partition("[")[0] not in keys:
            return f"{key} is unknown.{did_you_mean(key, keys)}"
    if full:
        given = merged[2] if merged and merged[1] == full[0] else refused_value(text)
        if wrong := explain_type(schema, full[0], given):
            return wrong
    if merged:
        return f"{merged[1]}={merged[2]} is not allowed: {_first_line(error.__cause__ or error)}"
    # The first line of a fault in a file says no more than where it was found.
    where, _, what = str(error).strip().partition(" raised while composing config:\n")
    return f"{where.rpartition(': ')[0]}: {what.splitlines()[0]}" if what else _first_line(error)


def _groups(schema: type) -> set[str]:
    """Every key that holds others, and the overlays, which no schema has."""
    parents = {key.rpartition(".")[0] for key in leaf_keys(schema)} - {""}
    return parents | ({"experiment", "debug"} if parents else set())


def _to_object(config: DictConfig, schema: type) -> Any:
    known = set(leaf_keys(schema))
    free = tuple(f"{key}." for key in known if holds_any_key(schema, key))
    for key in dotted_keys(cast(Mapping[str, Any], OmegaConf.to_container(config))):
        # An override with `+` adds a key that no schema has; it would be ignored without a word.
        if key not in known and not key.startswith(free):
            raise ConfigError(f"{key} is unknown.{did_you_mean(key, known)}")
    typed = OmegaConf.to_object(config)
    if isinstance(typed, TrainConfig):
        _read_entries(typed.data)
    return typed


def _read_entries(data: DataConfig) -> None:
    """Checks each entry by itself: in one check of all, an error would not tell which. Paths alone stay."""
    data.sources = [_typed(f"data.sources[{i}]", each, SourceConfig) for i, each in enumerate(data.sources)]
    key, benchmarks = "data.contamination.benchmarks", data.contamination.benchmarks
    for i, each in enumerate(benchmarks):
        if not isinstance(each, str):
            benchmarks[i] = _typed(f"{key}[{i}]", each, BenchmarkConfig)


def _typed(key: str, entry: Any, schema: type) -> Any:
    if isinstance(entry, schema):
        return entry
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{key}={entry!r} is not a group of keys. Write it as {{path:{entry}}}.")
    known = set(leaf_keys(schema))
    for group, inner in (("columns", ColumnsConfig), ("prompt_template", PromptTemplateConfig)):
        known |= {f"{group}.{name}" for name in leaf_keys(inner) if group in known}
    for name in dotted_keys(entry):
        if name not in known:
            groups = sorted({each.partition(".")[0] for each in known})
            near = did_you_mean(name, known) or f" Known: {', '.join(groups)}."
            raise ConfigError(f"{key}.{name} is unknown.{near}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), entry))
    except OmegaConfBaseException as error:
        name = str(error.full_key or "")
        wrong = explain_type(schema, name, refused_value(str(error)), f"{key}.") if name else ""
        raise ConfigError(wrong or f"{key}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
