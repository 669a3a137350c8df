"""Prompt and completion: two strings, or two lists of turns as TRL writes them."""

from typing import Any

from loralab.data.formats.fields import required_text, system_turn
from loralab.data.formats.turns import OPENAI_TURN, read_turns, refuse_tools
from loralab.data.records import Message
from loralab.errors import DataError


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has a prompt and a completion or response."""
    return "prompt" in fields and ("completion" in fields or "response" in fields)


def to_messages(fields: dict[str, Any]) -> tuple[Message, ...]:
    """Converts one row; strings become one user and one assistant turn.

    Raises:
        DataError: A field is missing, is there twice, or is of the wrong type.
    """
    refuse_tools(fields)
    answer = "response" if "response" in fields else "completion"
    if answer == "response" and "completion" in fields:
        raise DataError("has both 'completion' and 'response'; choose with data.columns.response=<field>")
    if isinstance(fields.get("prompt"), list) or isinstance(fields.get(answer), list):
        return (*system_turn(fields), *_join_turns(fields, answer))
    return (
        *system_turn(fields),
        Message("user", required_text(fields, "prompt")),
        Message("assistant", required_text(fields, answer)),
    )


def _join_turns(fields: dict[str, Any], answer: str) -> tuple[Message, ...]:
    prompt = read_turns(fields, "prompt", OPENAI_TURN)
    completion = read_turns(fields, answer, OPENAI_TURN)
    # TRL trains on all of the completion and none of the prompt; we train on assistant turns.
    # Where the two differ, the row would be trained in another way than it was written for.
    if any(message.role == "assistant" for message in prompt):
        raise DataError("'prompt' has an assistant turn, which would be trained; give the row as 'messages'")
    if any(message.role in ("user", "system") for message in completion):
        raise DataError(f"'{answer}' has a turn that is not the assistant's; give the row as 'messages'")
    return prompt + completion
