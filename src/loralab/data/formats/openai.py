"""OpenAI chat rows: `messages`, a list of `{role, content}` turns."""

from typing import Any

from loralab.data.formats.fields import system_turn
from loralab.data.formats.turns import OPENAI_TURN, has_turns, read_turns, refuse_tools
from loralab.data.records import Message


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has OpenAI turns and is no preference pair, which carries its answers elsewhere."""
    return has_turns(fields.get("messages"), OPENAI_TURN) and "chosen" not in fields


def to_messages(fields: dict[str, Any]) -> tuple[Message, ...]:
    """Converts one row; typed text parts of one turn are joined without a separator.

    Raises:
        DataError: The turns or the row's `system` cannot be used.
    """
    refuse_tools(fields)
    return (*system_turn(fields), *read_turns(fields, "messages", OPENAI_TURN))
