"""Tool schemas of a row and the calls that an assistant turn makes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from loralab.data.formats.fields import nested
from loralab.data.records import ToolCall
from loralab.data.sources import json_type
from loralab.errors import DataError, did_you_mean


def read_tools(fields: dict[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Returns the function schemas in the row's `tools`: a list, or JSON text of one.

    Keys that hold null are dropped unless they stand in JSON text: Arrow adds them for keys that
    other rows have.

    Raises:
        DataError: The field holds something else.
    """
    tools = nested(fields, "tools")
    if tools is None or tools == "":
        return ()
    if not isinstance(tools, list):
        raise DataError(f"the field 'tools' holds {json_type(tools)}; a list of function schemas is needed")
    for number, tool in enumerate(tools, start=1):
        if not isinstance(tool, dict):
            raise DataError(f"'tools' entry {number} is {json_type(tool)}; a function schema is needed")
    if isinstance(fields["tools"], str):
        return tuple(tools)
    return tuple(drop_nulls(tool) for tool in tools)


def write_tools(tools: Sequence[Mapping[str, Any]], as_text: bool = False) -> dict[str, Any]:
    """Returns the row's `tools`, or nothing where there are none.

    Args:
        tools: The schemas.
        as_text: Write JSON text. It is also written where a list would lose keys that hold null.

    Raises:
        DataError: A schema holds a value that JSON has no form for.
    """
    if not tools:
        return {}
    schemas = [dict(tool) for tool in tools]
    text = to_json(schemas, "a tool schema")
    return {"tools": text if as_text or drop_nulls(schemas) != schemas else schemas}


def read_tool_calls(value: object, keeps_nulls: bool = False) -> tuple[ToolCall, ...]:
    """Converts the calls of a turn: `{id, function: {name, arguments}}` or `{name, arguments}`, or a list.

    Args:
        value: One call or a list of them.
        keeps_nulls: Keep arguments that are null: the calls come from JSON text and not from Arrow.

    Raises:
        DataError: A call has no name, or its arguments are neither an object nor text.
    """
    calls = value if isinstance(value, list) else [value]
    return tuple(
        _read_call(call, f"call {number}", keeps_nulls) for number, call in enumerate(calls, start=1)
    )


def read_call_text(text: str) -> tuple[ToolCall, ...]:
    """Converts the JSON text of one call `{name, arguments}` or a list of them.

    Raises:
        DataError: The text is no JSON, or a call in it cannot be used.
    """
    try:
        value = json.loads(text)
    except (RecursionError, ValueError):
        raise DataError("the call is no JSON text; {name, arguments} or a list of them is needed") from None
    if not value:
        raise DataError("the call is empty; {name, arguments} or a list of them is needed")
    return read_tool_calls(value, keeps_nulls=True)


def write_tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Returns calls as OpenAI writes them, their arguments as JSON text.

    Raises:
        DataError: A call could not be read back as it is.
    """
    return [
        ({"id": call.id} if call.id else {})
        | {"type": "function", "function": {"name": _name(call), "arguments": _arguments_text(call)}}
        for call in calls
    ]


def write_call_text(calls: Sequence[ToolCall]) -> str:
    """Returns calls as the JSON text of a ShareGPT `function_call` turn.

    Raises:
        DataError: A call could not be read back as it is.
    """
    written = [
        {"name": _name(call), "arguments": _arguments(call)} | ({"id": call.id} if call.id else {})
        for call in calls
    ]
    return to_json(written[0] if len(written) == 1 else written, "a tool call")


def drop_nulls(value: Any) -> Any:
    """Returns a nested value without the keys that hold null; items of lists stay."""
    if isinstance(value, Mapping):
        return {key: drop_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [drop_nulls(each) for each in value]
    return value


def to_json(value: Any, what: str) -> str:
    """Returns JSON text that names its source where it cannot be written.

    Raises:
        DataError: The value, described by `what`, has a part that JSON has no form for.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} cannot be written as JSON: {error}") from None


def _read_call(call: object, place: str, keeps_nulls: bool) -> ToolCall:
    if not isinstance(call, dict):
        raise DataError(f"{place} is {json_type(call)}; an object {{name, arguments}} is needed")
    kind = call.get("type")
    if kind not in (None, "function"):
        raise DataError(f"{place} has type={kind!r}; only type='function' is supported")
    function = call if call.get("function") is None else call["function"]
    if not isinstance(function, dict):
        raise DataError(f"{place} has {json_type(function)} as 'function'; {{name, arguments}} is needed")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        hint = did_you_mean("name", function) if "name" not in function else ""
        raise DataError(f"{place} has no 'name'.{hint}")
    identity = call.get("id")
    if not isinstance(identity, str | None):
        raise DataError(f"{place} has {json_type(identity)} as 'id'; a string is needed")
    arguments = function.get("arguments")
    return ToolCall(
        name, _read_arguments(arguments if keeps_nulls else drop_nulls(arguments), place), identity or ""
    )


def _read_arguments(value: object, place: str) -> Mapping[str, Any] | str:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        parsed = _parse_object(value)
        return value if parsed is None else parsed
    raise DataError(f"{place} has {json_type(value)} as 'arguments'; an object or text is needed")


def _parse_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _name(call: ToolCall) -> str:
    if not call.name:
        raise DataError("a tool call without a name cannot be written")
    return call.name


def _arguments(call: ToolCall) -> dict[str, Any] | str:
    if not isinstance(call.arguments, str):
        return dict(call.arguments)
    if _parse_object(call.arguments) is not None:
        raise DataError(f"the call of {call.name!r} has text arguments that would be read as an object")
    return call.arguments


def _arguments_text(call: ToolCall) -> str:
    arguments = _arguments(call)
    return arguments if isinstance(arguments, str) else to_json(arguments, f"the call of {call.name!r}")
