"""Names of modules: short forms that choose a set of them, layer numbers, and the closest real names."""

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from peft.utils import transformers_weight_conversion
from transformers import PreTrainedModel

NUM_CLOSEST = 3
NUMBER = re.compile(r"(.*?\.)(\d+)(\..+)?")
"""A module name around its first number: before it, the number, after it."""
PEFT_PREFIX = "base_model.model."
"""What the names of a `PeftModel` have before those of the base inside."""


def layer_of(name: str) -> int | None:
    """Returns the number of the decoder layer that a module lies in: the first number in its name."""
    match = NUMBER.fullmatch(name)
    return int(match[2]) if match else None


def ends_with(name: str, end: str) -> bool:
    """Says whether a module name ends in whole parts, as PEFT matches targets."""
    return name == end or name.endswith(f".{end}")


def closest(word: str, names: Iterable[str]) -> str:
    """Lists the real names that a word was most likely meant to be; all last parts where none is close."""
    known = {part for name in names for part in (name, name.rpartition(".")[2])}
    last = sorted({name.rpartition(".")[2] for name in known})
    pool = last if "." not in word else sorted(known)
    return ", ".join(difflib.get_close_matches(word, pool, n=NUM_CLOSEST, cutoff=0.3) or last)


def shortest_selector(
    names: Sequence[str], everything: Sequence[str], whole_names_only: bool = False
) -> list[str] | str:
    """Returns the shortest form of PEFT's `target_modules` that matches exactly these modules of a model.

    Args:
        names: Whole names of the modules to match.
        everything: Whole names of all modules.
        whole_names_only: Whether PEFT would read a regular expression in another way (`fused_names`).
    """
    if (ends := _exact_ends(names, everything)) is not None:
        return ends
    return list(names) if whole_names_only else _expression(names)


def shortest_ends(names: Sequence[str], everything: Sequence[str]) -> list[str]:
    """Returns the shortest ends of module names that match exactly these modules of a model.

    Args:
        names: Whole names of the modules to match.
        everything: Whole names of all modules.
    """
    ends = _exact_ends(names, everything)
    return sorted(names) if ends is None else ends


def fused_names(model: PreTrainedModel) -> frozenset[str]:
    """Returns last parts of names that PEFT redirects to fused experts in a model's family; mostly none.

    Adapters made before experts became one parameter name the layers of each expert. PEFT 0.21 turns every
    such target into the parameter that replaced it, in a shared expert or a dense layer too.
    """
    model_type = model.config.model_type
    # Private to PEFT: there is no other way to learn which names it takes.
    conversion: Any = transformers_weight_conversion
    if conversion.get_checkpoint_conversion_mapping(model_type) is None:
        return frozenset()
    family = conversion._MODEL_TO_CONVERSION_PATTERN.get(model_type)
    return frozenset(conversion._MOE_TARGET_MODULE_MAPPING.get(family, ()))


def _exact_ends(names: Sequence[str], everything: Sequence[str]) -> list[str] | None:
    for num_parts in (1, 2):
        ends = {".".join(name.split(".")[-num_parts:]) for name in names}
        if sum(any(ends_with(name, end) for end in ends) for name in everything) == len(names):
            return sorted(ends)
    return None


def _expression(names: Collection[str]) -> str:
    """Writes modules as one regular expression, alternatives grouped by the layers that they are in."""
    numbers: dict[tuple[str, str], list[str]] = defaultdict(list)
    alternatives = []
    for name in names:
        match = NUMBER.fullmatch(name)
        if match is None or match[3] is None:
            alternatives.append(re.escape(name))
        else:
            numbers[match[1], match[3]].append(match[2])
    rests: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (before, after), found in numbers.items():
        rests[before, tuple(found)].append(after.removeprefix("."))
    for (before, layers), inside in rests.items():
        inner = "|".join(map(re.escape, inside))
        alternatives.append(rf"{re.escape(before)}({'|'.join(layers)})\.({inner})")
    return "|".join(alternatives)
