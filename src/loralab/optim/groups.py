"""Parameter groups: what decays, and at which multiple of the learning rate."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from loralab.config.schema import OptimConfig
from loralab.errors import ConfigError
from loralab.model.module_names import PEFT_PREFIX, closest

LR_SCALE = "lr_scale"
"""Where a parameter group keeps its multiple of the learning rate."""
LOW_RANK = re.compile(r"\.lora_([AB])\b")
"""What tells A and B of a linear layer by their names."""


def parameter_groups(parameters: Mapping[str, nn.Parameter], config: OptimConfig) -> list[dict[str, Any]]:
    """Sorts parameters by weight decay and multiple of the learning rate.

    Args:
        parameters: What trains, by the names that a `PeftModel` gives it.
        config: Weight decay, LoRA+ and the factors of single modules.

    Raises:
        ConfigError: A key of `optim.lr_pattern` is no regular expression or names nothing that trains.
    """
    check_lr_pattern(config, parameters)
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        low_rank = is_low_rank(name)
        # With a rank of 1, A and B are matrices all the same.
        decays = config.decay_vectors or low_rank or not is_vector(parameter)
        decay = config.weight_decay if decays else 0.0
        key = (lr_scale(name, config), decay, low_rank)
        group = {"params": [], LR_SCALE: key[0], "weight_decay": decay, "is_low_rank": low_rank}
        groups.setdefault(key, group)["params"].append(parameter)
    return list(groups.values())


def set_learning_rate(groups: Iterable[dict[str, Any]], lr: float) -> None:
    """Gives each parameter group its multiple of the learning rate of a step."""
    for group in groups:
        group["lr"] = lr * group[LR_SCALE]


def lr_scale(name: str, config: OptimConfig) -> float:
    """Returns by what the learning rate of a parameter is multiplied.

    The factor of the first key of `optim.lr_pattern` that names a module around it, and for B the ratio of
    LoRA+ (arXiv:2402.12354, section 4).
    """
    inside, letter = modules_around(name), LOW_RANK.search(name)
    factor = next((each for key, each in config.lr_pattern.items() if _names_any(key, inside)), 1.0)
    return factor * (config.lora_plus_ratio if letter is not None and letter[1] == "B" else 1.0)


def is_low_rank(name: str) -> bool:
    """Says whether a parameter is A or B of a linear layer."""
    return LOW_RANK.search(name) is not None


def is_vector(parameter: Tensor) -> bool:
    """Says whether a parameter has one dimension, or several of which one is longer than 1."""
    return sum(side > 1 for side in parameter.shape) <= 1


def check_lr_pattern(config: OptimConfig, names: Iterable[str]) -> None:
    """Refuses keys of `optim.lr_pattern` that change no learning rate.

    Args:
        config: The pattern.
        names: Of the parameters that train, as a `PeftModel` names them.

    Raises:
        ConfigError: A key is no regular expression, or names nothing that trains.
    """
    if not config.lr_pattern:
        return
    inside = list(dict.fromkeys(module for name in names for module in modules_around(name)))
    for key in config.lr_pattern:
        try:
            matches = _names_any(key, inside)
        except re.error as error:
            raise ConfigError(f"optim.lr_pattern: {key!r} is no regular expression: {error}.") from error
        if not matches:
            raise ConfigError(
                f"optim.lr_pattern: {key!r} matches no module that trains. Closest: {closest(key, inside)}."
            )


def modules_around(name: str) -> list[str]:
    """Lists the names of the modules around a parameter, without what PEFT puts before and between."""
    parts = [part for part in name.removeprefix(PEFT_PREFIX).split(".") if part not in ("default", "weight")]
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _names_any(key: str, modules: Iterable[str]) -> bool:
    return any(get_pattern_key([key], module) == key for module in modules)
