"""Records as compact JSON text: how prepared rows are kept and how they travel between processes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from loralab.data.records import (
    LINE,
    Conversation,
    LabelledConversation,
    Message,
    PreferencePair,
    Record,
    ToolCall,
)
from loralab.errors import DataError

_TEXT_PARTS = ("reasoning", "name", "tool_call_id")
_SEPARATORS = (",", ":")


def record_to_json(record: Record) -> str:
    """Returns a record as one line of JSON without its source and row; absent parts are left out.

    What the row is counted in stays with the record, where it is not the line.

    The text can be written as UTF-8: where a string holds half of a surrogate pair, everything beyond
    ASCII is escaped.

    Raises:
        DataError: The record holds a value that JSON has no form for.
    """
    value = _record_parts(record)
    try:
        text = _ENCODER.encode(value)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=_SEPARATORS, default=_as_dict)
    except (TypeError, ValueError) as error:
        raise DataError(f"the row cannot be kept as JSON: {error}") from None
    return text


def record_from_json(text: str, source: str, row: int) -> Record:
    """Returns the record that `record_to_json` wrote.

    Args:
        text: The JSON text.
        source: The file that the row came from.
        row: The row's place in its source, counted from 1.

    Raises:
        DataError: The text is not that of a record.
    """
    try:
        return _read_record(json.loads(text), source, row)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{source} row {row}: no kept record: {type(error).__name__}: {error}") from None


def _record_parts(record: Record) -> dict[str, Any]:
    parts: dict[str, Any]
    if isinstance(record, PreferencePair):
        parts = {name: _list(getattr(record, name)) for name in ("prompt", "chosen", "rejected")}
    else:
        parts = {"messages": _list(record.messages)}
        if isinstance(record, LabelledConversation):
            parts["label"] = record.label
    if record.tools:
        parts["tools"] = record.tools
    if record.unit != LINE:
        parts["unit"] = record.unit
    return parts


def _list(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [_message_parts(message) for message in messages]


def _message_parts(message: Message) -> dict[str, Any]:
    parts: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.weight is not None:
        parts["weight"] = message.weight
    if message.tool_calls:
        parts["tool_calls"] = [_call_parts(call) for call in message.tool_calls]
    for name in _TEXT_PARTS:
        if value := getattr(message, name):
            parts[name] = value
    return parts


def _call_parts(call: ToolCall) -> dict[str, Any]:
    parts = {"name": call.name, "arguments": call.arguments}
    return parts | {"id": call.id} if call.id else parts


def _as_dict(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _read_record(parts: dict[str, Any], source: str, row: int) -> Record:
    tools, unit = tuple(parts.get("tools", ())), parts.get("unit", LINE)
    if "chosen" in parts:
        prompt, chosen, rejected = (_messages(parts[name]) for name in ("prompt", "chosen", "rejected"))
        return PreferencePair(prompt, chosen, rejected, source, row, tools, unit)
    messages = _messages(parts["messages"])
    if "label" in parts:
        return LabelledConversation(messages, parts["label"], source, row, tools, unit)
    return Conversation(messages, source, row, tools, unit)


def _messages(turns: list[dict[str, Any]]) -> tuple[Message, ...]:
    return tuple([_message(turn) for turn in turns])


def _message(turn: dict[str, Any]) -> Message:
    calls = turn.get("tool_calls")
    if calls:
        turn["tool_calls"] = tuple(ToolCall(**call) for call in calls)
    return Message(**turn)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=_SEPARATORS, default=_as_dict)
"""Built once: `json.dumps` makes a new one for every call with options."""
