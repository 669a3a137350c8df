"""Judged answers: a prompt and an answer, or turns, with a label that says whether the answer is good."""

from typing import Any

from loralab.data.formats.fields import has_label, has_pair, read_label, system_turn
from loralab.data.formats.prompt_completion import has_prompt_and_answer, read_prompt_and_answer
from loralab.data.formats.tools import read_tools, write_tools
from loralab.data.formats.turns import OPENAI_TURN, SHAREGPT_TURN, has_turns, read_turns
from loralab.data.formats.writing import is_plain, require_kind, split_system, write_openai_turns
from loralab.data.records import LabelledConversation, Message, Record
from loralab.errors import DataError

_TURN_FIELDS = ("messages", "conversations")
_SHAPES = (OPENAI_TURN, SHAREGPT_TURN)


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has a label of true, false, 1 or 0 and an answer that it judges."""
    if not has_label(fields) or has_pair(fields):
        return False
    turns = any(has_turns(fields.get(name), shape) for name in _TURN_FIELDS for shape in _SHAPES)
    return turns or has_prompt_and_answer(fields)


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row; turns may be of either shape.

    Raises:
        DataError: The label, the turns or the strings are missing or of the wrong type.
    """
    messages = _read_messages(fields)
    return LabelledConversation(messages, read_label(fields), tools=read_tools(fields))


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of a labelled conversation: strings where they suffice, else `messages`.

    Raises:
        DataError: The record has no label, or a part of it could not be read back.
    """
    labelled = require_kind(record, LabelledConversation, "unpaired")
    system, turns = split_system(labelled.messages)
    fields: dict[str, Any]
    if is_plain(turns, "user", "assistant"):
        fields = {"prompt": turns[0].content, "completion": turns[1].content} | system
    else:
        fields = {"messages": write_openai_turns(labelled.messages, "unpaired")}
    return fields | {"label": labelled.label} | write_tools(labelled.tools)


def _read_messages(fields: dict[str, Any]) -> tuple[Message, ...]:
    for name in _TURN_FIELDS:
        if fields.get(name) is not None:
            shape = SHAREGPT_TURN if has_turns(fields[name], SHAREGPT_TURN) else OPENAI_TURN
            return (*system_turn(fields), *read_turns(fields, name, shape))
    if "prompt" not in fields:
        raise DataError("has neither a 'prompt' nor 'messages' nor 'conversations'")
    return read_prompt_and_answer(fields)
