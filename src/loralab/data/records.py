"""The one form that every data format converts into."""

from dataclasses import dataclass

ROLES = ("system", "user", "assistant", "tool", "text")
"""Roles of a message; `text` is a plain document: no template, every token supervised."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """One of `ROLES`."""
    content: str
    """The text of the turn, without any template markup."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """An ordered exchange of messages and where it came from."""

    messages: tuple[Message, ...]
    """The turns, oldest first."""
    source: str
    """The file that the row came from."""
    row: int
    """The row's place in its source, counted from 1."""

    @property
    def is_text(self) -> bool:
        """Whether this is a plain document rather than a chat."""
        return self.messages[0].role == "text"

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns before the last assistant turn."""
        return self.messages[:-1]

    @property
    def response(self) -> str:
        """The text of the last turn."""
        return self.messages[-1].content
