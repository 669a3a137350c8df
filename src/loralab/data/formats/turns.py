"""From a list of turns, as chat formats write them, to messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loralab.data.records import Message
from loralab.data.sources import json_type
from loralab.errors import DataError, did_you_mean

_NO_TOOL_CALLS = "tool calls are not supported yet; remove the row or write the call as text"
# Dropping one of these would train on another conversation than the one in the file.
_UNSUPPORTED = {
    "tool_calls": _NO_TOOL_CALLS,
    "function_call": _NO_TOOL_CALLS,
    "reasoning_content": "reasoning text is not supported yet; write it into the content",
}
_WEIGHTS = ("loss_weight", "weight")


@dataclass(frozen=True, slots=True)
class TurnShape:
    """The names that a chat format gives to the parts of a turn."""

    role: str
    """Field with the speaker."""
    content: str
    """Field with the text."""
    roles: Mapping[str, str]
    """Our role for each role of the format."""


OPENAI_TURN = TurnShape("role", "content", {role: role for role in ("system", "user", "assistant", "tool")})
"""A turn as `{"role": ..., "content": ...}`, which OpenAI, Hugging Face and TRL share."""


def has_turns(value: object, shape: TurnShape) -> bool:
    """Whether a field holds a list that is empty or starts with a turn of this shape."""
    return isinstance(value, list) and (not value or (isinstance(value[0], dict) and shape.role in value[0]))


def read_turns(fields: dict[str, Any], name: str, shape: TurnShape) -> tuple[Message, ...]:
    """Converts the list of turns in one field.

    Raises:
        DataError: The field is missing or no list, or one of its turns cannot be used.
    """
    if name not in fields:
        raise DataError(f"the field '{name}' is missing.{did_you_mean(name, fields)}")
    turns = fields[name]
    if not isinstance(turns, list):
        raise DataError(f"the field '{name}' holds {json_type(turns)}; a list of turns is needed")
    messages = []
    for number, turn in enumerate(turns, start=1):
        try:
            messages.append(_read_turn(turn, shape))
        except DataError as error:
            raise DataError(f"'{name}' turn {number}: {error}") from None
    return tuple(messages)


def refuse_tools(fields: dict[str, Any]) -> None:
    """Refuses a row that offers tools, since its prompt would be rendered without them.

    Raises:
        DataError: The row has a `tools` field that is not empty.
    """
    if fields.get("tools"):
        raise DataError("the field 'tools': tool calls are not supported yet; remove the field or the row")


def _read_turn(turn: object, shape: TurnShape) -> Message:
    if not isinstance(turn, dict):
        raise DataError(f"{json_type(turn)} where an object {{{shape.role}, {shape.content}}} is needed")
    for field, reason in _UNSUPPORTED.items():
        if turn.get(field):
            raise DataError(f"{field}: {reason}")
    role = _read_role(turn, shape)
    _refuse_weight(turn, role)
    return Message(role, _read_content(turn, shape.content))


def _read_role(turn: dict[str, Any], shape: TurnShape) -> str:
    role = turn.get(shape.role)
    if not isinstance(role, str):
        raise DataError(f"'{shape.role}' is {'missing' if role is None else 'no string'}")
    if role == "function_call":
        raise DataError(_NO_TOOL_CALLS)
    if role not in shape.roles:
        hint = did_you_mean(role, shape.roles)
        raise DataError(f"{shape.role}={role!r} is unknown.{hint} Known: {', '.join(shape.roles)}")
    return shape.roles[role]


def _refuse_weight(turn: dict[str, Any], role: str) -> None:
    expected = 1 if role == "assistant" else 0
    for name in _WEIGHTS:
        weight = turn.get(name)
        if weight is not None and weight != expected:
            raise DataError(
                f"{name}={weight!r} on a turn of role {role!r} is not supported yet; every assistant turn "
                "has weight 1 and every other turn 0"
            )


def _read_content(turn: dict[str, Any], name: str) -> str:
    content = turn.get(name)
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_read_part(part, number) for number, part in enumerate(content, start=1))
    if name not in turn:
        raise DataError(f"'{name}' is missing.{did_you_mean(name, turn)}")
    raise DataError(f"'{name}' is {json_type(content)}; a string or a list of text parts is needed")


def _read_part(part: object, number: int) -> str:
    if not isinstance(part, dict):
        raise DataError(f"part {number} is {json_type(part)}; an object {{type, text}} is needed")
    kind = part.get("type")
    if kind != "text":
        raise DataError(f"part {number} has type={kind!r}; only type='text' is supported")
    text = part.get("text", part.get("value"))
    if not isinstance(text, str):
        raise DataError(f"part {number} has no string in 'text' or 'value'")
    return text
