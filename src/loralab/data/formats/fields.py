"""Typed access to the fields of a raw row."""

import json
from typing import Any

from loralab.data.records import Message
from loralab.data.sources import json_type
from loralab.errors import DataError, did_you_mean

TEXT_OR_TURNS = "a string or a list of turns"
"""What error messages say of a field that may hold either."""
LABEL_FIELDS = ("label", "kto_tag")
"""Fields that judge an answer, best first."""

_LABELS = {"true": True, "false": False, "1": True, "0": False}


def required_text(fields: dict[str, Any], name: str, needed: str = "a string") -> str:
    """Returns a field that must hold a string.

    Args:
        fields: The row.
        name: The field.
        needed: What the field may hold, for error messages.

    Raises:
        DataError: The field is missing or holds something else.
    """
    value = _required(fields, name)
    if not isinstance(value, str):
        raise DataError(f"the field '{name}' holds {json_type(value)}; {needed} is needed")
    return value


def optional_text(fields: dict[str, Any], name: str) -> str:
    """Returns a field that may hold a string; an absent field or null gives an empty one.

    Raises:
        DataError: The field holds something else.
    """
    return "" if fields.get(name) is None else required_text(fields, name)


def system_turn(fields: dict[str, Any]) -> tuple[Message, ...]:
    """Returns the row's own `system` text as a turn, or nothing where it is absent or empty.

    Raises:
        DataError: The field holds something other than a string.
    """
    system = optional_text(fields, "system")
    return (Message("system", system),) if system else ()


def required_list(fields: dict[str, Any], name: str, items: str) -> list[Any]:
    """Returns a field that must hold a list, or JSON text of one as a cell of a table has it.

    Raises:
        DataError: The field is missing, is broken JSON, or holds something else.
    """
    value = nested(fields, name, _required(fields, name))
    if not isinstance(value, list):
        raise DataError(f"the field '{name}' holds {json_type(value)}; a list of {items} is needed")
    return value


def nested(fields: dict[str, Any], name: str, default: Any = None) -> Any:
    """Returns a field, parsed where it is text that starts as a JSON list or object does.

    Raises:
        DataError: The text is no JSON.
    """
    value = fields.get(name)
    if value is None:
        return default
    return parse_nested(name, value) if is_nested_text(value) else value


def is_nested_text(value: object) -> bool:
    """Whether a value is text that starts as a JSON list or object does."""
    return isinstance(value, str) and value.lstrip()[:1] in ("[", "{")


def parse_nested(name: str, text: str) -> Any:
    """Parses the JSON text in a field.

    Raises:
        DataError: The text is no JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise DataError(f"the field '{name}' holds broken JSON at {place}: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"the field '{name}' holds JSON that cannot be read: {error}") from None


def has_pair(fields: dict[str, Any]) -> bool:
    """Whether a row carries a preferred and a rejected answer."""
    return "chosen" in fields and "rejected" in fields


def has_label(fields: dict[str, Any]) -> bool:
    """Whether a row judges its answer as good or bad."""
    return any(_as_label(fields.get(name)) is not None for name in LABEL_FIELDS)


def read_label(fields: dict[str, Any]) -> bool:
    """Returns whether the row's answer is good.

    Raises:
        DataError: The label is missing, is no yes or no, or is there twice and contradicts itself.
    """
    given = {name: fields[name] for name in LABEL_FIELDS if fields.get(name) is not None}
    if not given:
        _required(fields, "label")
        raise DataError("the field 'label' holds null; true, false, 1 or 0 is needed")
    labels = set()
    for name, value in given.items():
        label = _as_label(value)
        if label is None:
            raise DataError(f"the field '{name}' holds {value!r}; true, false, 1 or 0 is needed")
        labels.add(label)
    if len(labels) > 1:
        raise DataError("'label' and 'kto_tag' contradict each other; keep one")
    return labels.pop()


def _as_label(value: object) -> bool | None:
    if isinstance(value, str):
        return _LABELS.get(value.strip().lower())
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    return None


def _required(fields: dict[str, Any], name: str) -> Any:
    if name not in fields:
        raise DataError(f"the field '{name}' is missing.{did_you_mean(name, fields)}")
    return fields[name]
