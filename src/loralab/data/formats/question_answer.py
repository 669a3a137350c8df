"""Questions and answers: two strings, and optionally a text that the question is about."""

from typing import Any

from loralab.data.formats.fields import has_pair, optional_text, required_text, system_turn
from loralab.data.formats.tools import read_tools, write_tools
from loralab.data.formats.writing import cannot_hold, is_plain, require_kind, require_strings, split_system
from loralab.data.records import Conversation, Message, Record


def matches(fields: dict[str, Any]) -> bool:
    """Whether a row has a question and an answer and is no preference pair."""
    return "question" in fields and "answer" in fields and not has_pair(fields)


def to_record(fields: dict[str, Any]) -> Record:
    """Converts one row; the context comes before the question, with an empty line between.

    Raises:
        DataError: A field is missing or of the wrong type.
    """
    texts = (optional_text(fields, "context"), required_text(fields, "question"))
    user = "\n\n".join(text for text in texts if text)
    answer = Message("assistant", required_text(fields, "answer"))
    return Conversation((*system_turn(fields), Message("user", user), answer), tools=read_tools(fields))


def from_record(record: Record) -> dict[str, Any]:
    """Returns the row of one question and its answer; a context stays part of the question.

    Raises:
        DataError: There are more turns, or they have more than text.
    """
    conversation = require_kind(record, Conversation, "question_answer")
    require_strings(conversation.messages, "question_answer")
    system, turns = split_system(conversation.messages)
    if not is_plain(turns, "user", "assistant"):
        shown = ", ".join(turn.role for turn in turns) or "none"
        raise cannot_hold(
            "question_answer", f"turns other than a question and its answer ({shown}); use openai"
        )
    fields = {"question": turns[0].content, "answer": turns[1].content}
    return fields | system | write_tools(conversation.tools)
