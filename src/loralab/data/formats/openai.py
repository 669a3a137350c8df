"""OpenAI chat rows: `messages`, a list of `{role, content}` turns."""

from typing import Any

from loralab.data.formats.fields import has_label, system_turn
from loralab.data.formats.tools import read_tools, write_tools
from loralab.data.formats.turns import OPENAI_TURN, has_turns, read_turns
from loralab.data.formats.writing import require_kind, write_openai_turns
from loralab.data.records import Conversation, Record


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has OpenAI turns and no answer elsewhere: it is no preference pair and not judged."""
    return has_turns(fields.get("messages"), OPENAI_TURN) and "chosen" not in fields and not has_label(fields)


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row.

    Raises:
        DataError: The turns, the row's `system` or its `tools` cannot be used.
    """
    messages = (*system_turn(fields), *read_turns(fields, "messages", OPENAI_TURN))
    return Conversation(messages, tools=read_tools(fields))


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of a conversation; every part of it has a place.

    Raises:
        DataError: The record is no conversation, or a part of it could not be read back.
    """
    conversation = require_kind(record, Conversation, "openai")
    messages = write_openai_turns(conversation.messages, "openai")
    return {"messages": messages} | write_tools(conversation.tools)
