"""ShareGPT rows: `conversations`, a list of `{from, value}` turns."""

from typing import Any

from loralab.data.formats.fields import system_turn
from loralab.data.formats.turns import TurnShape, has_turns, read_turns, refuse_tools
from loralab.data.records import Message

_TURN = TurnShape(
    "from",
    "value",
    {
        "human": "user",
        "user": "user",
        "gpt": "assistant",
        "assistant": "assistant",
        "model": "assistant",
        "chatgpt": "assistant",
        "system": "system",
        "tool": "tool",
        "observation": "tool",
    },
)


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has ShareGPT turns and is no preference pair, which carries its answers elsewhere."""
    return has_turns(fields.get("conversations"), _TURN) and "chosen" not in fields


def to_messages(fields: dict[str, Any]) -> tuple[Message, ...]:
    """Converts one row; a greeting by the assistant before the first user turn is kept.

    Raises:
        DataError: The turns or the row's `system` cannot be used.
    """
    refuse_tools(fields)
    return (*system_turn(fields), *read_turns(fields, "conversations", _TURN))
