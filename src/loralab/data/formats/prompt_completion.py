"""Prompt and completion: two strings, or two lists of turns as TRL writes them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from loralab.data.formats.fields import TEXT_OR_TURNS, has_label, has_pair, required_text, system_turn
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

_ANSWER_ROLES = ("assistant", "tool")


def has_prompt_and_answer(fields: dict[str, Any]) -> bool:
    """Whether a row has a prompt and a completion or response."""
    return "prompt" in fields and ("completion" in fields or "response" in fields)


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has a prompt and an answer that is neither judged nor one of a pair."""
    return has_prompt_and_answer(fields) and not has_pair(fields) and not has_label(fields)


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row; strings become one user and one assistant turn.

    Raises:
        DataError: A field is missing, is there twice, or is of the wrong type.
    """
    return Conversation(read_prompt_and_answer(fields), tools=read_tools(fields))


def read_prompt_and_answer(fields: dict[str, Any]) -> tuple[Message, ...]:
    """Returns the turns of the prompt and then those of the answer.

    TRL trains on the completion only, so an assistant turn of the prompt gets the weight 0 unless
    it carries one.

    Raises:
        DataError: A field is missing, is there twice, or is of the wrong type.
    """
    given = [name for name in ("completion", "response") if fields.get(name) is not None]
    if len(given) > 1:
        raise DataError("has both 'completion' and 'response'; choose with data.columns.response=<field>")
    answer = given[0] if given else ("response" if "response" in fields else "completion")
    if isinstance(fields.get("prompt"), list) or isinstance(fields.get(answer), list):
        return (*system_turn(fields), *_join_turns(fields, answer))
    return (
        *system_turn(fields),
        Message("user", required_text(fields, "prompt", TEXT_OR_TURNS)),
        Message("assistant", required_text(fields, answer, TEXT_OR_TURNS)),
    )


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of a conversation of which only the last answer is trained.

    Raises:
        DataError: The conversation has no answer at its end, or an earlier one without a weight.
    """
    conversation = require_kind(record, Conversation, "prompt_completion")
    system, turns = split_system(conversation.messages)
    if is_plain(turns, "user", "assistant"):
        fields = {"prompt": turns[0].content, "completion": turns[1].content} | system
        return fields | write_tools(conversation.tools)
    messages = conversation.messages
    start = _answer_start(messages)
    if start == len(messages):
        raise cannot_hold("prompt_completion", "turns without an answer at the end; use prompts or openai")
    for number, message in enumerate(messages[:start], start=1):
        if message.role == "assistant" and message.weight is None:
            what = f"an assistant turn before the last request (turn {number}), which would not be trained"
            raise cannot_hold("prompt_completion", f"{what}; use openai")
    written = write_openai_turns(messages, "prompt_completion")
    return {"prompt": written[:start], "completion": written[start:]} | write_tools(conversation.tools)


def _answer_start(messages: Sequence[Message]) -> int:
    start = len(messages)
    while start and messages[start - 1].role in _ANSWER_ROLES:
        start -= 1
    return start


def _join_turns(fields: dict[str, Any], answer: str) -> tuple[Message, ...]:
    for name, other in (("prompt", answer), (answer, "prompt")):
        if isinstance(fields.get(other), list) and not isinstance(fields.get(name), list | str | None):
            raise DataError(
                f"the field '{name}' holds {json_type(fields[name])}; a list of turns is needed, as in "
                f"'{other}'"
            )
    prompt = read_turns(fields, "prompt", OPENAI_TURN)
    completion = read_turns(fields, answer, OPENAI_TURN)
    if any(message.role not in _ANSWER_ROLES for message in completion):
        raise DataError(f"'{answer}' has a turn that is not the assistant's; give the row as 'messages'")
    return tuple(map(_untrained, prompt)) + completion


def _untrained(message: Message) -> Message:
    if message.role == "assistant" and message.weight is None:
        return replace(message, weight=0.0)
    return message
