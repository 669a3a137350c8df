"""Plain documents: `text`, trained in full and without a template."""

from typing import Any

from loralab.data.formats.fields import required_text
from loralab.data.records import Message


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has a text."""
    return "text" in fields


def to_messages(fields: dict[str, Any]) -> tuple[Message, ...]:
    """Converts one row to a single message of role `text`.

    Raises:
        DataError: The text is missing or no string.
    """
    return (Message("text", required_text(fields, "text")),)
