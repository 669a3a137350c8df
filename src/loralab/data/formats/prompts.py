"""Prompts without answers: `prompt`, a string or turns, or `turns`, the user's texts as MT-bench has them."""

from typing import Any

from loralab.data.formats.fields import (
    TEXT_OR_TURNS,
    is_nested_text,
    required_list,
    required_text,
    system_turn,
)
from loralab.data.formats.tools import read_tools, write_tools
from loralab.data.formats.turns import OPENAI_TURN, read_turns
from loralab.data.formats.writing import (
    cannot_hold,
    is_plain,
    require_kind,
    split_system,
    write_openai_turns,
)
from loralab.data.records import Conversation, Message, Record
from loralab.data.sources import json_type
from loralab.errors import DataError

ANSWERS = (
    "completion",
    "response",
    "answer",
    "output",
    "chosen",
    "rejected",
    "messages",
    "conversations",
    "text",
)
"""Fields that make a row more than a prompt."""


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has a prompt, or a list of the user's texts, and no field with an answer."""
    if any(name in fields for name in ANSWERS):
        return False
    return "prompt" in fields or _has_texts(fields.get("turns"))


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row; several texts become user turns in a row, each without its answer.

    Raises:
        DataError: The prompt is missing, of the wrong type, or ends with an answer.
    """
    messages = (*system_turn(fields), *_read_prompt(fields))
    return Conversation(messages, tools=read_tools(fields))


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of a conversation that waits for an answer.

    Raises:
        DataError: The record is no conversation, or ends with an answer.
    """
    conversation = require_kind(record, Conversation, "prompts")
    messages = conversation.messages
    if messages and messages[-1].role == "assistant":
        raise cannot_hold("prompts", "an answer; use openai or prompt_completion")
    system, turns = split_system(messages)
    fields: dict[str, Any]
    if is_plain(turns, "user"):
        fields = {"prompt": turns[0].content} | system
    elif turns and is_plain(turns, *["user"] * len(turns)):
        fields = {"turns": [turn.content for turn in turns]} | system
    else:
        fields = {"prompt": write_openai_turns(messages, "prompts")}
    return fields | write_tools(conversation.tools)


def _has_texts(turns: object) -> bool:
    return is_nested_text(turns) or (isinstance(turns, list) and all(isinstance(turn, str) for turn in turns))


def _read_prompt(fields: dict[str, Any]) -> tuple[Message, ...]:
    name = "turns" if "turns" in fields and fields.get("prompt") is None else "prompt"
    if name == "prompt" and not isinstance(fields.get("prompt"), list):
        return (Message("user", required_text(fields, "prompt", TEXT_OR_TURNS)),)
    prompt = required_list(fields, name, "texts" if name == "turns" else "turns")
    if prompt and (name == "turns" or isinstance(prompt[0], str)):
        return tuple(_user_turn(text, name, number) for number, text in enumerate(prompt, start=1))
    messages = read_turns(fields, name, OPENAI_TURN)
    if messages and messages[-1].role == "assistant":
        raise DataError(f"'{name}' ends with an answer; give the row as 'messages'")
    return messages


def _user_turn(text: object, name: str, number: int) -> Message:
    if not isinstance(text, str):
        raise DataError(f"'{name}' turn {number} is {json_type(text)}; a string is needed")
    return Message("user", text)
