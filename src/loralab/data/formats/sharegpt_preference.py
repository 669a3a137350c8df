"""ShareGPT preference pairs: the prompt in `conversations`, the answers in `chosen` and `rejected`."""

from collections.abc import Sequence
from typing import Any

from loralab.data.formats.fields import has_pair, is_nested_text, parse_nested, required_text, system_turn
from loralab.data.formats.preference import check_answers
from loralab.data.formats.tools import read_tools, write_tools
from loralab.data.formats.turns import SHAREGPT_TURN, has_turns, is_turn, read_turn_list, read_turns
from loralab.data.formats.writing import cannot_hold, require_kind, write_sharegpt_turns
from loralab.data.records import Message, PreferencePair, Record
from loralab.errors import DataError


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has ShareGPT turns and two answers."""
    turns = fields.get("conversations")
    return has_pair(fields) and "prompt" not in fields and has_turns(turns, SHAREGPT_TURN)


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row; an answer is a turn, a list of turns, or a string.

    Raises:
        DataError: The turns, an answer, or the row's `system` or `tools` cannot be used.
    """
    prompt = (*system_turn(fields), *read_turns(fields, "conversations", SHAREGPT_TURN))
    chosen, rejected = (_read_answer(fields, name) for name in ("chosen", "rejected"))
    check_answers(chosen, rejected)
    return PreferencePair(prompt, chosen, rejected, tools=read_tools(fields))


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of a preference pair, its tools as JSON text.

    Raises:
        DataError: The record is no preference pair, or has reasoning or text beside tool calls.
    """
    form = "sharegpt_preference"
    pair = require_kind(record, PreferencePair, form)
    try:
        check_answers(pair.chosen, pair.rejected)
    except DataError as error:
        raise cannot_hold(form, f"this pair: {error}") from None
    return {
        "conversations": write_sharegpt_turns(pair.prompt, form),
        "chosen": _write_answer(pair.chosen, form),
        "rejected": _write_answer(pair.rejected, form),
    } | write_tools(pair.tools, as_text=True)


def _read_answer(fields: dict[str, Any], name: str) -> tuple[Message, ...]:
    value = fields.get(name)
    if is_nested_text(value) and isinstance(fields["conversations"], str):
        value = _parse_cell(name, str(value))
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return read_turn_list(value, name, SHAREGPT_TURN)
    return (Message("assistant", required_text(fields, name, "a string, a turn or a list of turns")),)


def _parse_cell(name: str, text: str) -> Any:
    """Returns the turns in a cell of a table whose prompt is JSON text too, or the text if it has none."""
    try:
        value = parse_nested(name, text)
    except DataError:
        return text
    return value if is_turn(value, SHAREGPT_TURN) or (value and has_turns(value, SHAREGPT_TURN)) else text


def _write_answer(turns: Sequence[Message], form: str) -> Any:
    written = write_sharegpt_turns(turns, form)
    return written[0] if len(written) == 1 else written
