"""Alpaca records: an instruction, an optional input, and the output."""

from collections.abc import Sequence
from typing import Any

from loralab.data.formats.fields import has_pair, nested, optional_text, required_text, system_turn
from loralab.data.formats.tools import read_tools, write_tools
from loralab.data.formats.writing import cannot_hold, require_kind, require_strings, split_system
from loralab.data.records import Conversation, Message, Record
from loralab.data.sources import json_type
from loralab.errors import DataError


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has the fields of an Alpaca record and is not a prompt with two answers."""
    return "instruction" in fields and "output" in fields and not ("prompt" in fields and has_pair(fields))


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row; the input follows the instruction after an empty line.

    Raises:
        DataError: A field is missing or of the wrong type.
    """
    texts = (required_text(fields, "instruction"), optional_text(fields, "input"))
    user = "\n\n".join(text for text in texts if text)
    output = required_text(fields, "output")
    messages = (
        *system_turn(fields),
        *_read_history(nested(fields, "history")),
        Message("user", user),
        Message("assistant", output),
    )
    return Conversation(messages, tools=read_tools(fields))


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of a conversation of user and assistant turns in pairs; earlier ones go to `history`.

    Raises:
        DataError: The turns are no such pairs, or have more than text.
    """
    conversation = require_kind(record, Conversation, "alpaca")
    require_strings(conversation.messages, "alpaca")
    system, turns = split_system(conversation.messages)
    pairs = _pair_up(turns)
    fields = {"instruction": pairs[-1][0], "input": "", "output": pairs[-1][1]} | system
    if len(pairs) > 1:
        fields["history"] = pairs[:-1]
    return fields | write_tools(conversation.tools)


def _pair_up(turns: Sequence[Message]) -> list[list[str]]:
    roles = [turn.role for turn in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        shown = ", ".join(roles) or "none"
        raise cannot_hold("alpaca", f"turns other than user and assistant in turn ({shown}); use openai")
    texts = [turn.content for turn in turns]
    return [texts[start : start + 2] for start in range(0, len(texts), 2)]


def _read_history(history: object) -> tuple[Message, ...]:
    if history is None or history == "":
        return ()
    if not isinstance(history, list):
        raise DataError(f"the field 'history' holds {json_type(history)}; a list of pairs is needed")
    messages: list[Message] = []
    for number, pair in enumerate(history, start=1):
        match pair:
            case [str(question), str(answer)]:
                messages += (Message("user", question), Message("assistant", answer))
            case _:
                raise DataError(f"'history' entry {number} is no pair of strings [question, answer]")
    return tuple(messages)
