"""ShareGPT rows: `conversations`, a list of `{from, value}` turns."""

from typing import Any

from loralab.data.formats.fields import has_label, system_turn
from loralab.data.formats.tools import read_tools, write_tools
from loralab.data.formats.turns import SHAREGPT_TURN, has_turns, read_turns
from loralab.data.formats.writing import require_kind, write_sharegpt_turns
from loralab.data.records import Conversation, Record


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has ShareGPT turns and no answer elsewhere: it is no preference pair and not judged."""
    return (
        has_turns(fields.get("conversations"), SHAREGPT_TURN)
        and "chosen" not in fields
        and not has_label(fields)
    )


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row; a greeting by the assistant before the first user turn is kept.

    Raises:
        DataError: The turns, the row's `system` or its `tools` cannot be used.
    """
    messages = (*system_turn(fields), *read_turns(fields, "conversations", SHAREGPT_TURN))
    return Conversation(messages, tools=read_tools(fields))


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of a conversation, its tools as JSON text.

    Raises:
        DataError: The record is no conversation, or has reasoning or text beside tool calls.
    """
    conversation = require_kind(record, Conversation, "sharegpt")
    turns = write_sharegpt_turns(conversation.messages, "sharegpt")
    return {"conversations": turns} | write_tools(conversation.tools, as_text=True)
