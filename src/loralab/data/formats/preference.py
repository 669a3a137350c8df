"""Preference pairs: a prompt and two answers, or two conversations that start alike, as TRL takes them."""

from collections.abc import Sequence
from typing import Any

from loralab.data.formats.fields import (
    TEXT_OR_TURNS,
    has_pair,
    is_nested_text,
    nested,
    required_text,
    system_turn,
)
from loralab.data.formats.tools import read_tools, write_tools
from loralab.data.formats.turns import OPENAI_TURN, read_turn_list, read_turns
from loralab.data.formats.writing import (
    cannot_hold,
    is_plain,
    require_kind,
    split_system,
    write_openai_turns,
)
from loralab.data.records import Message, PreferencePair, Record
from loralab.data.sources import json_type
from loralab.errors import DataError

Turns = tuple[Message, ...]

_REQUEST_ROLES = ("system", "user")


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has two answers and does not keep its prompt in ShareGPT turns."""
    return has_pair(fields) and ("prompt" in fields or "conversations" not in fields)


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row.

    Answers that repeat the prompt are cut after it. Without a prompt it is the longest start that
    both conversations share and that leaves each an assistant turn.

    Raises:
        DataError: A field is missing or of the wrong type, or the conversations share no start.
    """
    system, tools = system_turn(fields), read_tools(fields)
    if fields.get("prompt") is None:
        both = [_read_conversation(fields, name) for name in ("chosen", "rejected")]
        prompt, chosen, rejected = _split_at_prompt(*both)
    else:
        prompt = _read_prompt(fields)
        chosen, rejected = (_read_answer(fields, name) for name in ("chosen", "rejected"))
        if _repeats(prompt, chosen, rejected):
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    check_answers(chosen, rejected)
    return PreferencePair(system + prompt, chosen, rejected, tools=tools)


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of a preference pair: strings where they suffice, else lists of turns.

    Raises:
        DataError: The record is no preference pair, or could not be read back as it is.
    """
    pair = require_kind(record, PreferencePair, "preference")
    _check_written(pair)
    system, prompt = split_system(pair.prompt)
    answers = {"chosen": pair.chosen, "rejected": pair.rejected}
    fields: dict[str, Any]
    if is_plain(prompt, "user") and all(is_plain(turns, "assistant") for turns in answers.values()):
        fields = {"prompt": prompt[0].content}
        fields |= {name: turns[0].content for name, turns in answers.items()} | system
    else:
        fields = {"prompt": write_openai_turns(pair.prompt, "preference")}
        fields |= {name: write_openai_turns(turns, "preference") for name, turns in answers.items()}
    return fields | write_tools(pair.tools)


def check_answers(chosen: Sequence[Message], rejected: Sequence[Message]) -> None:
    """Refuses a pair of which one side is no answer.

    Raises:
        DataError: A side has no assistant turn, or starts with another request.
    """
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        _require_assistant(name, turns)
        if turns[0].role in _REQUEST_ROLES:
            raise DataError(
                f"'{name}' starts with a turn of role {turns[0].role!r} that is not the prompt's; both must "
                "answer the same prompt"
            )


def _require_assistant(name: str, turns: Sequence[Message]) -> None:
    if not any(turn.role == "assistant" for turn in turns):
        raise DataError(f"'{name}' has no assistant turn; an answer to the prompt is needed")


def _read_prompt(fields: dict[str, Any]) -> Turns:
    if isinstance(fields["prompt"], list):
        return read_turns(fields, "prompt", OPENAI_TURN)
    return (Message("user", required_text(fields, "prompt", TEXT_OR_TURNS)),)


def _read_answer(fields: dict[str, Any], name: str) -> Turns:
    value = fields.get(name)
    if isinstance(value, list | dict):
        return read_turn_list(value if isinstance(value, list) else [value], name, OPENAI_TURN)
    return (Message("assistant", required_text(fields, name, TEXT_OR_TURNS)),)


def _read_conversation(fields: dict[str, Any], name: str) -> Turns:
    value = fields.get(name)
    if isinstance(value, str) and not is_nested_text(value):
        raise DataError(
            f"'{name}' is text and there is no 'prompt' that it answers; a whole dialogue in one text cannot "
            "be cut into turns: give 'prompt', 'chosen' and 'rejected', or lists of turns"
        )
    turns = nested(fields, name)
    if not isinstance(turns, list):
        required = "a list of turns is needed where there is no 'prompt'"
        if value is None:
            required_text(fields, name, "a list of turns")
        raise DataError(f"the field '{name}' holds {json_type(turns)}; {required}")
    return read_turn_list(turns, name, OPENAI_TURN)


def _split_at_prompt(chosen: Turns, rejected: Turns) -> tuple[Turns, Turns, Turns]:
    _require_assistant("chosen", chosen)
    _require_assistant("rejected", rejected)
    most = min(_last_answer(chosen), _last_answer(rejected))
    length = 0
    while length < most and chosen[length] == rejected[length]:
        length += 1
    if length == 0:
        raise DataError(
            "'chosen' and 'rejected' share no first turn; both must start with the same prompt, "
            "or the row needs a 'prompt'"
        )
    return chosen[:length], chosen[length:], rejected[length:]


def _last_answer(turns: Turns) -> int:
    return max(place for place, turn in enumerate(turns) if turn.role == "assistant")


def _repeats(prompt: Turns, chosen: Turns, rejected: Turns) -> bool:
    length = len(prompt)
    return length > 0 and chosen[:length] == rejected[:length] == prompt


def _check_written(pair: PreferencePair) -> None:
    try:
        check_answers(pair.chosen, pair.rejected)
    except DataError as error:
        raise cannot_hold("preference", f"this pair: {error}") from None
    if _repeats(pair.prompt, pair.chosen, pair.rejected):
        raise cannot_hold("preference", "answers that repeat the prompt, which would be cut off")
