"""Alpaca records: an instruction, an optional input, and the output."""

from typing import Any

from loralab.data.formats.fields import optional_text, required_text, system_turn
from loralab.data.records import Message
from loralab.data.sources import json_type
from loralab.errors import DataError


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has the fields of an Alpaca record."""
    return "instruction" in fields and "output" in fields


def to_messages(fields: dict[str, Any]) -> tuple[Message, ...]:
    """Converts one row; the input follows the instruction after an empty line.

    Raises:
        DataError: A field is missing or of the wrong type.
    """
    texts = (required_text(fields, "instruction"), optional_text(fields, "input"))
    user = "\n\n".join(text for text in texts if text)
    output = required_text(fields, "output")
    return (
        *system_turn(fields),
        *_read_history(fields.get("history")),
        Message("user", user),
        Message("assistant", output),
    )


def _read_history(history: object) -> tuple[Message, ...]:
    if history is None:
        return ()
    if not isinstance(history, list):
        raise DataError(f"the field 'history' holds {json_type(history)}; a list of pairs is needed")
    messages: list[Message] = []
    for number, pair in enumerate(history, start=1):
        match pair:
            case [str(question), str(answer)]:
                messages += (Message("user", question), Message("assistant", answer))
            case _:
                raise DataError(f"'history' entry {number} is no pair of strings [question, answer]")
    return tuple(messages)
