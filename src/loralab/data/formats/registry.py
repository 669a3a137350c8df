"""The known forms of a row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loralab.data.formats import alpaca, openai, prompt_completion, sharegpt, text
from loralab.data.records import Message
from loralab.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Format:
    """One form that a row can have."""

    name: str
    """The value of `data.format`."""
    expects: str
    """The fields it needs, as error messages show them."""
    matches: Callable[[dict[str, Any]], bool]
    """Whether one row has this form; looks at field names and the first turn, never at every value."""
    to_messages: Callable[[dict[str, Any]], tuple[Message, ...]]
    """Converts one row, or raises `DataError` without file and place, which the caller adds."""
    columns: Mapping[str, tuple[str, ...]]
    """The field names, best first, behind each `data.columns` name that the form takes."""


_SYSTEM = {"system": ("system",)}

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format(
            "alpaca",
            "instruction, output",
            alpaca.matches,
            alpaca.to_messages,
            {"prompt": ("instruction",), "response": ("output",), **_SYSTEM},
        ),
        Format(
            "sharegpt",
            "conversations: [{from, value}]",
            sharegpt.matches,
            sharegpt.to_messages,
            {"messages": ("conversations",), **_SYSTEM},
        ),
        Format(
            "openai",
            "messages: [{role, content}]",
            openai.matches,
            openai.to_messages,
            {"messages": ("messages",), **_SYSTEM},
        ),
        Format(
            "prompt_completion",
            "prompt, completion or response",
            prompt_completion.matches,
            prompt_completion.to_messages,
            {"prompt": ("prompt",), "response": ("completion", "response"), **_SYSTEM},
        ),
        Format("text", "text", text.matches, text.to_messages, {"text": ("text",)}),
    )
}
"""Every known form by the name that `data.format` takes."""


def check_format(form: str) -> None:
    """Refuses a name that `data.format` does not take.

    Raises:
        DataError: The name is neither `auto` nor a known form.
    """
    known = ("auto", *FORMATS)
    if form not in known:
        hint = did_you_mean(form, known)
        raise DataError(f"data.format={form!r} is unknown.{hint} Known: {', '.join(known)}.")
