"""Checks of form: the order of the turns, code fences, JSON."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn

from markdown_it import MarkdownIt
from markdown_it.token import Token

from loralab.data.records import Message

_CONTAINER_MARKS = re.compile(r"^[\s>]*")


def find_order_fault(messages: Sequence[Message]) -> str:
    """Returns how the turns break the order of a conversation, or an empty string.

    A system turn may open the conversation, and so may a greeting by the assistant. Then user and
    assistant alternate. Tool turns follow an assistant turn with tool calls or another tool turn, and
    the assistant speaks after them; in a row without structured tool calls the calls are taken to be
    written as text, and a tool turn may follow any assistant turn. Documents and rows of user turns
    only have no order.
    """
    roles = [message.role for message in messages]
    if roles == ["text"] or (roles and set(roles) == {"user"}):
        return ""
    if "user" not in roles:
        return "there is no user turn"
    calls_are_structured = any(message.tool_calls for message in messages)
    for index, role in enumerate(roles):
        before = messages[index - 1] if index else None
        if not _may_follow(role, before, calls_are_structured):
            place = f"follows turn {index} ({before.role})" if before else "opens the conversation"
            return f"turn {index + 1} ({role}) {place}"
    return ""


def _may_follow(role: str, before: Message | None, calls_are_structured: bool) -> bool:
    if before is None:
        return role in ("system", "user", "assistant")
    if role == "user":
        return before.role in ("system", "assistant")
    if role == "assistant":
        return before.role in ("system", "user", "tool")
    if role == "tool":
        asked = before.role == "assistant" and (bool(before.tool_calls) or not calls_are_structured)
        return asked or before.role == "tool"
    return False


def find_fence_fault(text: str) -> str:
    """Returns which code fence of a Markdown text is unclosed or declared as JSON that does not parse.

    Fences are those of CommonMark 0.31, section 4.5, also inside lists and quotes: a closing fence has
    the character of the opening one and is at least as long.
    """
    if "```" not in text and "~~~" not in text:
        return ""
    fences = [token for token in _markdown().parse(text) if token.type == "fence" and token.map]
    lines = re.split(r"\r\n|\r|\n", text)
    for token in fences:
        start, end = token.map or (0, 0)
        if not _is_closed(token, lines[start:end]):
            return f"the code fence {token.markup!r} in line {start + 1} is not closed"
        fault = find_json_fault(token.content) if token.info.lower().split()[:1] == ["json"] else ""
        if fault:
            return f"the code fence in line {start + 1} is declared as JSON: {fault}"
    return ""


def find_json_fault(text: str) -> str:
    """Returns why a text is no JSON (RFC 8259, so without NaN and Infinity), or an empty string."""
    try:
        json.loads(text.strip(), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "nested too deeply"
    return ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    """Returns a CommonMark parser of blocks; inline markup says nothing about fences."""
    return MarkdownIt("commonmark").disable("inline")


def _is_closed(token: Token, lines: Sequence[str]) -> bool:
    """Whether the last of a fence's lines closes it.

    The parser does not say, but it leaves the closing line out of the content, in which a line that
    only looks alike stays.
    """
    num_content_lines = len(token.content.removesuffix("\n").split("\n")) if token.content else 0
    if num_content_lines != len(lines) - 2:
        return False
    last = _CONTAINER_MARKS.sub("", lines[-1]).rstrip()
    return len(last) >= len(token.markup) and not last.strip(token.markup[0])
