"""The parts of one turn as chat formats write them: text, thought, calls, weight."""

import sys
from collections.abc import Mapping
from typing import Any

from loralab.data.formats.fields import is_nested_text, parse_nested
from loralab.data.formats.tools import read_tool_calls
from loralab.data.records import ToolCall
from loralab.data.sources import json_type
from loralab.errors import DataError, did_you_mean

WEIGHTS = ("weight", "loss_weight", "train")
"""Fields with the weight of a turn in the loss; `train` is true or false."""

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Fields with the thought before an answer, the one we write first."""


def read_content(turn: Mapping[str, Any], name: str, is_optional: bool) -> str:
    """Returns the text of a turn; typed text parts are joined without a separator.

    Args:
        turn: The turn as the row has it.
        name: The field with the text.
        is_optional: Take an empty text where there is none, as beside tool calls.

    Raises:
        DataError: The text is missing or is neither a string nor text parts.
    """
    content = turn.get(name)
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_read_part(part, number) for number, part in enumerate(content, start=1))
    if content is None and is_optional:
        return ""
    if name not in turn:
        raise DataError(f"'{name}' is missing.{did_you_mean(name, turn)}")
    raise DataError(f"'{name}' is {json_type(content)}; a string or a list of text parts is needed")


def read_weight(turn: Mapping[str, Any]) -> float | None:
    """Returns the weight of a turn in the loss, or None where it gives none.

    Raises:
        DataError: It is no finite number of 0 or more, or two fields contradict each other.
    """
    given = {name: turn[name] for name in WEIGHTS if turn.get(name) is not None}
    weights = {_as_weight(name, value) for name, value in given.items()}
    if len(weights) > 1:
        shown = " and ".join(f"{name}={value!r}" for name, value in given.items())
        raise DataError(f"{shown} contradict each other; keep one (train=true is weight 1, false is 0)")
    return weights.pop() if weights else None


def is_weight(value: object) -> bool:
    """Whether a value is a finite number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= sys.float_info.max


def read_text_part(turn: Mapping[str, Any], name: str) -> str:
    """Returns a field of a turn that may hold a string; absent or null gives an empty one.

    Raises:
        DataError: It holds something else.
    """
    value = turn.get(name)
    if not isinstance(value, str | None):
        raise DataError(f"'{name}' is {json_type(value)}; a string is needed")
    return value or ""


def read_reasoning(turn: Mapping[str, Any]) -> str:
    """Returns the thought before an answer, or an empty string.

    Raises:
        DataError: It is no string, or two fields differ.
    """
    given = {name: text for name in REASONING if (text := read_text_part(turn, name))}
    if len(set(given.values())) > 1:
        raise DataError(f"{' and '.join(map(repr, given))} hold different texts; keep one")
    return next(iter(given.values()), "")


def read_turn_calls(turn: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Returns the calls in a turn's `tool_calls`, or in the older `function_call`.

    Raises:
        DataError: Both are there, or a call cannot be used.
    """
    given = [name for name in ("tool_calls", "function_call") if not _is_empty(turn.get(name))]
    if not given:
        return ()
    if len(given) > 1:
        raise DataError("has both 'tool_calls' and 'function_call'; keep 'tool_calls'")
    name, value = given[0], turn[given[0]]
    is_text = is_nested_text(value)
    if is_text:
        value = parse_nested(name, value)
    if not isinstance(value, list if name == "tool_calls" else dict):
        wanted = "a list of calls" if name == "tool_calls" else "an object {name, arguments}"
        raise DataError(f"'{name}' is {json_type(value)}; {wanted} is needed")
    try:
        return read_tool_calls(value, keeps_nulls=is_text)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _is_empty(value: object) -> bool:
    if isinstance(value, dict):
        return all(each is None for each in value.values())
    return value is None or value in ([], "")


def _as_weight(name: str, value: Any) -> float:
    if name == "train":
        if not isinstance(value, bool):
            raise DataError(f"train={value!r} is unknown; true or false is needed")
    elif not is_weight(value):
        raise DataError(f"{name}={value!r} is no weight; a finite number of 0 or more is needed")
    return float(value)


def _read_part(part: object, number: int) -> str:
    if not isinstance(part, dict):
        raise DataError(f"part {number} is {json_type(part)}; an object {{type, text}} is needed")
    kind = part.get("type")
    if kind != "text":
        raise DataError(f"part {number} has type={kind!r}; only type='text' is supported")
    text = part["text"] if part.get("text") is not None else part.get("value")
    if not isinstance(text, str):
        raise DataError(f"part {number} has no string in 'text' or 'value'")
    return text
