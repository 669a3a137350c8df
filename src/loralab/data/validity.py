"""What a record must satisfy whatever is done with it."""

import json
import re
from collections.abc import Iterator, Sequence

from loralab.data.records import ROLES, Conversation, Message, Record, all_messages

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def find_fault(record: Record) -> str:
    """Returns why a record cannot be used, or an empty string when it can.

    A conversation of user turns alone is a prompt and has no fault: whether answers are needed depends
    on what the rows are for (`is_prompt_only`).
    """
    messages = record.messages
    if not messages:
        return "the conversation is empty; at least one turn is needed"
    turns = enumerate(all_messages(record), start=1)
    faults = (_find_turn_fault(message, number, len(messages)) for number, message in turns)
    if fault := next(filter(None, faults), _find_tool_fault(record)):
        return fault
    if messages[0].role == "text" or is_prompt_only(record):
        return ""
    if all(message.role != "assistant" for message in messages):
        return "there is no assistant turn; add the answer"
    if messages[-1].role != "assistant":
        return f"the last turn is of role {messages[-1].role!r}; end the row with the assistant's answer"
    return ""


def is_prompt_only(record: Record) -> bool:
    """Whether a record asks without an answer."""
    return isinstance(record, Conversation) and _only(record.messages, ("system", "user"))


def _only(messages: Sequence[Message], roles: Sequence[str]) -> bool:
    return all(message.role in roles for message in messages)


def _find_turn_fault(message: Message, number: int, num_turns: int) -> str:
    if message.role not in ROLES:
        return f"turn {number} has the unknown role {message.role!r}; known: {', '.join(ROLES)}"
    if message.role == "text" and num_turns > 1:
        return f"turn {number} is a plain text among turns; a text stands alone"
    if message.role == "system" and number > 1:
        return f"turn {number} is a system turn; only the first turn may be one"
    if message.role in ("assistant", "text") and not (message.content.strip() or message.tool_calls):
        what = "the text" if message.role == "text" else f"the assistant's text in turn {number}"
        return f"{what} is empty; fill it in or remove the row"
    if any(map(_LONE_SURROGATE.search, _texts(message))):
        return f"turn {number} holds half of a surrogate pair, which no tokenizer can encode; remove it"
    return ""


def _find_tool_fault(record: Record) -> str:
    if record.tools and _LONE_SURROGATE.search(_as_json(record.tools)):
        return "'tools' holds half of a surrogate pair, which no tokenizer can encode; remove it"
    return ""


def _texts(message: Message) -> Iterator[str]:
    yield from (message.content, message.reasoning, message.name, message.tool_call_id)
    if message.tool_calls:
        yield _as_json([(call.name, call.arguments, call.id) for call in message.tool_calls])


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
