"""Plain documents: `text`, trained in full and without a template."""

from typing import Any

from loralab.data.formats.fields import has_pair, required_text
from loralab.data.formats.writing import cannot_hold, is_plain, require_kind
from loralab.data.records import Conversation, Message, Record


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has a text and is no preference pair."""
    return "text" in fields and not has_pair(fields)


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row to a single message of role `text`.

    Raises:
        DataError: The text is missing or no string.
    """
    return Conversation((Message("text", required_text(fields, "text")),))


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of a plain text.

    Raises:
        DataError: The record is a conversation, or has more than text.
    """
    conversation = require_kind(record, Conversation, "text")
    messages = conversation.messages
    if not messages or messages[0].role != "text":
        raise cannot_hold("text", "turns; use openai or sharegpt")
    if not is_plain(messages, "text") or conversation.tools:
        raise cannot_hold("text", "more than one text without weight or tools")
    return {"text": messages[0].content}
