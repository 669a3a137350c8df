"""From messages back to turns and fields; what a form has no place for is refused, never dropped."""

from collections.abc import Sequence
from typing import Any, TypeVar

from loralab.data.formats.tools import write_call_text, write_tool_calls
from loralab.data.formats.turn_parts import REASONING, is_weight
from loralab.data.formats.turns import CALL_ROLE, OPENAI_TURN, SHAREGPT_TURN
from loralab.data.records import Conversation, LabelledConversation, Message, PreferencePair, Record
from loralab.errors import DataError

Kind = TypeVar("Kind", Conversation, PreferencePair, LabelledConversation)

_KINDS: dict[type, str] = {
    Conversation: "a conversation; use openai or sharegpt",
    PreferencePair: "a preference pair; use preference or sharegpt_preference",
    LabelledConversation: "a labelled answer; use unpaired",
}
_SPEAKERS = {"tool_calls": "assistant", "reasoning": "assistant", "tool_call_id": "tool"}
_PLAIN_ROLES = ("system", "user", "assistant", "tool")


def cannot_hold(form: str, what: str) -> DataError:
    """Returns the error for what a form has no place for; `what` says which form has one."""
    return DataError(f"data.format={form!r} cannot hold {what}")


def require_kind(record: Record, kind: type[Kind], form: str) -> Kind:
    """Returns a record of the one kind that a form holds.

    Raises:
        DataError: It is of another kind, or a plain text.
    """
    if not isinstance(record, kind):
        raise cannot_hold(form, _KINDS[type(record)])
    if form != "text" and any(message.role == "text" for message in record.messages):
        raise cannot_hold(form, "a plain text; use text")
    return record


def extras(message: Message) -> list[str]:
    """Returns what a message has beside its role and text, by the names of its fields."""
    given = {
        "weight": message.weight is not None,
        "tool_calls": message.tool_calls,
        "reasoning": message.reasoning,
        "name": message.name,
        "tool_call_id": message.tool_call_id,
    }
    return [name for name, value in given.items() if value]


def is_plain(messages: Sequence[Message], *roles: str) -> bool:
    """Whether the messages have these roles, in order, and nothing but text."""
    return [m.role for m in messages] == list(roles) and not any(extras(m) for m in messages)


def split_system(messages: Sequence[Message]) -> tuple[dict[str, Any], tuple[Message, ...]]:
    """Returns the `system` field for a plain first system turn, and the turns after it.

    A turn that such a field could not hold stays among the turns.
    """
    first, rest = tuple(messages[:1]), tuple(messages[1:])
    if is_plain(first, "system") and first[0].content:
        return {"system": first[0].content}, rest
    return {}, first + rest


def require_strings(messages: Sequence[Message], form: str) -> None:
    """Refuses messages that a form of plain strings has no place for.

    Raises:
        DataError: A message has more than text, or is the tool's.
    """
    for number, message in enumerate(messages, start=1):
        if message.role == "tool":
            raise cannot_hold(form, f"a tool turn (turn {number}); use openai")
        for name in extras(message):
            raise cannot_hold(form, f"{name!r} (turn {number}); use openai")


def write_openai_turns(messages: Sequence[Message], form: str) -> list[dict[str, Any]]:
    """Returns messages as `{role, content}` turns, with tool calls, reasoning and weights.

    Raises:
        DataError: A message could not be read back as it is.
    """
    return [_openai_turn(message, form, number) for number, message in enumerate(messages, start=1)]


def write_sharegpt_turns(messages: Sequence[Message], form: str) -> list[dict[str, Any]]:
    """Returns messages as `{from, value}` turns; calls become turns of their own role.

    Raises:
        DataError: A message has reasoning, text beside tool calls, or could not be read back as it is.
    """
    return [_sharegpt_turn(message, form, number) for number, message in enumerate(messages, start=1)]


def _openai_turn(message: Message, form: str, number: int) -> dict[str, Any]:
    _check_message(message, form, number)
    turn: dict[str, Any] = {OPENAI_TURN.role: message.role, OPENAI_TURN.content: message.content}
    if message.reasoning:
        turn[REASONING[0]] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = write_tool_calls(message.tool_calls)
    return turn | _common_parts(message)


def _sharegpt_turn(message: Message, form: str, number: int) -> dict[str, Any]:
    _check_message(message, form, number)
    if message.reasoning:
        raise cannot_hold(form, f"'reasoning' (turn {number}); use openai")
    role, value = _written_role(message.role), message.content
    if message.tool_calls:
        for part in ("content", "name"):
            if getattr(message, part):
                raise cannot_hold(form, f"{part!r} beside tool calls (turn {number}); use openai")
        role, value = CALL_ROLE, write_call_text(message.tool_calls)
    return {SHAREGPT_TURN.role: role, SHAREGPT_TURN.content: value} | _common_parts(message)


def _written_role(role: str) -> str:
    return next(theirs for theirs, ours in SHAREGPT_TURN.roles.items() if ours == role)


def _common_parts(message: Message) -> dict[str, Any]:
    parts = {"name": message.name, "tool_call_id": message.tool_call_id}
    written: dict[str, Any] = {name: value for name, value in parts.items() if value}
    return written if message.weight is None else written | {"weight": message.weight}


def _check_message(message: Message, form: str, number: int) -> None:
    if message.role not in _PLAIN_ROLES:
        raise cannot_hold(form, f"a turn of role {message.role!r} (turn {number})")
    for name, speaker in _SPEAKERS.items():
        if getattr(message, name) and message.role != speaker:
            raise cannot_hold(form, f"{name!r} on a turn of role {message.role!r} (turn {number})")
    if message.weight is not None and not is_weight(message.weight):
        raise cannot_hold(form, f"weight={message.weight!r} (turn {number})")
