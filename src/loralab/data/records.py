"""The few forms that every data format converts into."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant", "tool", "text")
"""Roles of a message; `text` is a plain document: no template, every token supervised."""
LINE = "line"
"""What most files count their rows in; tables and JSON documents count them as `row`."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant asks for."""

    name: str
    """The function's name."""
    arguments: Mapping[str, Any] | str
    """Its arguments by name; text only where the row's own text is no JSON object."""
    id: str = ""
    """What the tool's answer refers to; empty where the row gives none."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """One of `ROLES`."""
    content: str
    """The text of the turn, without any template markup."""
    weight: float | None = None
    """Weight of the turn in the loss; None follows the rule of the run (`data.supervise`)."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Functions that an assistant turn asks for."""
    reasoning: str = ""
    """Thought before an assistant's answer, where the row keeps it apart from the content."""
    name: str = ""
    """The function that a tool turn answers for, or the speaker's name."""
    tool_call_id: str = ""
    """The call that a tool turn answers."""


class _Placed:
    """What knows where it stands in its source."""

    __slots__ = ()
    row: int
    unit: str

    @property
    def place(self) -> str:
        """The place in the source as messages name it, such as `line 7`."""
        return f"{self.unit} {self.row}"


@dataclass(frozen=True, slots=True)
class Conversation(_Placed):
    """An ordered exchange of messages and where it came from."""

    messages: tuple[Message, ...]
    """The turns, oldest first."""
    source: str = ""
    """The file that the row came from."""
    row: int = 0
    """The row's place in its source, counted from 1."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the functions that the assistant may call."""
    unit: str = LINE
    """What `row` counts: `line` or `row`, as the reader of the file does."""

    @property
    def is_text(self) -> bool:
        """Whether this is a plain document rather than a chat."""
        return bool(self.messages) and self.messages[0].role == "text"

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns before the last assistant turn."""
        return self.messages[:-1]

    @property
    def response(self) -> str:
        """The text of the last turn."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class PreferencePair(_Placed):
    """Two continuations of one prompt, of which the first is preferred."""

    prompt: tuple[Message, ...]
    """The turns that both share."""
    chosen: tuple[Message, ...]
    """The turns of the preferred continuation; at least one."""
    rejected: tuple[Message, ...]
    """The turns of the other continuation; at least one."""
    source: str = ""
    """The file that the row came from."""
    row: int = 0
    """The row's place in its source, counted from 1."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the functions that the assistant may call."""
    unit: str = LINE
    """What `row` counts: `line` or `row`, as the reader of the file does."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The preferred conversation."""
        return self.prompt + self.chosen


@dataclass(frozen=True, slots=True)
class LabelledConversation(_Placed):
    """A conversation whose last turn is judged good or bad (unpaired preference, as KTO takes it)."""

    messages: tuple[Message, ...]
    """The turns, oldest first."""
    label: bool
    """Whether the last turn is a good answer."""
    source: str = ""
    """The file that the row came from."""
    row: int = 0
    """The row's place in its source, counted from 1."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the functions that the assistant may call."""
    unit: str = LINE
    """What `row` counts: `line` or `row`, as the reader of the file does."""


Record = Conversation | PreferencePair | LabelledConversation
"""What a row can become; each has `messages`, `tools`, `source`, `row` and `place`."""


def all_messages(record: Record) -> tuple[Message, ...]:
    """Every message of a record, the rejected ones of a pair included."""
    return record.messages + (record.rejected if isinstance(record, PreferencePair) else ())
