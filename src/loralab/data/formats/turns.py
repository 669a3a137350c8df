"""From a list of turns, as chat formats write them, to messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loralab.data.formats.fields import is_nested_text, parse_nested, required_list
from loralab.data.formats.tools import read_call_text
from loralab.data.formats.turn_parts import (
    read_content,
    read_reasoning,
    read_text_part,
    read_turn_calls,
    read_weight,
)
from loralab.data.records import Message
from loralab.data.sources import json_type
from loralab.errors import DataError, did_you_mean

CALL_ROLE = "function_call"
"""Role of a ShareGPT turn whose text is a tool call."""


@dataclass(frozen=True, slots=True)
class TurnShape:
    """The names that a chat format gives to the parts of a turn."""

    role: str
    """Field with the speaker."""
    content: str
    """Field with the text."""
    roles: Mapping[str, str]
    """Our role, or `CALL_ROLE`, for each role of the format; of those for one role the first is written."""


OPENAI_TURN = TurnShape(
    "role",
    "content",
    {
        "system": "system",
        "developer": "system",
        "user": "user",
        "assistant": "assistant",
        "tool": "tool",
        "function": "tool",
    },
)
"""A turn as `{"role": ..., "content": ...}`, which OpenAI, Hugging Face and TRL share."""

SHAREGPT_TURN = TurnShape(
    "from",
    "value",
    {"human": "user", "user": "user"}
    | dict.fromkeys(("gpt", "assistant", "model", "chatgpt", "chatbot", "bot"), "assistant")
    | dict.fromkeys(("bing", "bard", "claude"), "assistant")
    | {"system": "system", "observation": "tool", "tool": "tool", CALL_ROLE: CALL_ROLE},
)
"""A turn as `{"from": ..., "value": ...}`, which ShareGPT and LLaMA-Factory share."""


def has_turns(value: object, shape: TurnShape) -> bool:
    """Whether a field holds a list that is empty or starts with a turn of this shape.

    JSON text of such a list counts, and so does broken JSON text: reading it says what is wrong.
    """
    if is_nested_text(value):
        try:
            value = parse_nested("turns", str(value))
        except DataError:
            return True
    return isinstance(value, list) and (not value or is_turn(value[0], shape))


def is_turn(value: object, shape: TurnShape) -> bool:
    """Whether a value is an object with a speaker of this shape."""
    return isinstance(value, dict) and shape.role in value


def read_turns(fields: dict[str, Any], name: str, shape: TurnShape) -> tuple[Message, ...]:
    """Converts the list of turns in one field, or JSON text of one.

    Raises:
        DataError: The field is missing or no list, or one of its turns cannot be used.
    """
    return read_turn_list(required_list(fields, name, "turns"), name, shape)


def read_turn_list(turns: Sequence[object], name: str, shape: TurnShape) -> tuple[Message, ...]:
    """Converts turns that stand in the field `name`.

    Raises:
        DataError: One of them cannot be used.
    """
    messages = []
    for number, turn in enumerate(turns, start=1):
        try:
            messages.append(_read_turn(turn, shape))
        except DataError as error:
            raise DataError(f"'{name}' turn {number}: {error}") from None
    return tuple(messages)


def _read_turn(turn: object, shape: TurnShape) -> Message:
    if not isinstance(turn, dict):
        raise DataError(f"{json_type(turn)} where an object {{{shape.role}, {shape.content}}} is needed")
    role = _read_role(turn, shape)
    weight = read_weight(turn)
    if role == CALL_ROLE:
        calls = read_call_text(read_content(turn, shape.content, is_optional=False))
        return Message("assistant", "", weight, calls)
    calls = read_turn_calls(turn)
    reasoning = read_reasoning(turn)
    identity = read_text_part(turn, "tool_call_id")
    _check_speaker(role, {"tool calls": calls, "reasoning": reasoning}, "assistant")
    _check_speaker(role, {"'tool_call_id'": identity}, "tool")
    content = read_content(turn, shape.content, is_optional=bool(calls))
    return Message(role, content, weight, calls, reasoning, read_text_part(turn, "name"), identity)


def _read_role(turn: dict[str, Any], shape: TurnShape) -> str:
    role = turn.get(shape.role)
    if not isinstance(role, str):
        raise DataError(f"'{shape.role}' is {'missing' if role is None else 'no string'}")
    if role not in shape.roles:
        hint = did_you_mean(role, shape.roles)
        raise DataError(f"{shape.role}={role!r} is unknown.{hint} Known: {', '.join(shape.roles)}")
    return shape.roles[role]


def _check_speaker(role: str, parts: Mapping[str, object], owner: str) -> None:
    for name, value in parts.items():
        if value and role != owner:
            raise DataError(f"a turn of role {role!r} has {name}; only one of role {owner!r} may")
