"""Typed access to the fields of a raw row."""

from typing import Any

from loralab.data.records import Message
from loralab.data.sources import json_type
from loralab.errors import DataError, did_you_mean


def required_text(fields: dict[str, Any], name: str) -> str:
    """Returns a field that must hold a string.

    Raises:
        DataError: The field is missing or holds something else.
    """
    if name not in fields:
        raise DataError(f"the field '{name}' is missing.{did_you_mean(name, fields)}")
    value = fields[name]
    if not isinstance(value, str):
        raise DataError(f"the field '{name}' holds {json_type(value)}; a string is needed")
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
