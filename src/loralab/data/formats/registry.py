"""The known forms of a row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from loralab.data.formats import (
    alpaca,
    openai,
    preference,
    prompt_completion,
    prompts,
    question_answer,
    sharegpt,
    sharegpt_preference,
    text,
    unpaired,
)
from loralab.data.records import Record
from loralab.errors import DataError, did_you_mean

Columns = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Format:
    """One form that a row can have."""

    name: str
    """The value of `data.format`."""
    expects: str
    """The fields it needs, as error messages show them."""
    evidence: str
    """What in a row speaks for the form, as a clause."""
    matches: Callable[[dict[str, Any]], bool]
    """Whether one row has this form; looks at field names and the first turn, never at every value."""
    to_record: Callable[[dict[str, Any]], Record]
    """Converts one row, or raises `DataError`; file and place are left to the caller."""
    from_record: Callable[[Record], dict[str, Any]]
    """Returns the fields that `to_record` turns into the same record, or raises `DataError`."""
    columns: Columns
    """The field names, best first, behind each `data.columns` name that the form takes."""


_SYSTEM = {"system": ("system",)}
_PROMPT = {"prompt": ("prompt",)}
_ANSWER = {"response": ("completion", "response")}
_PAIR = {"chosen": ("chosen",), "rejected": ("rejected",)}
_LABEL = {"label": ("label", "kto_tag")}


def _format(module: ModuleType, expects: str, evidence: str, columns: Columns) -> Format:
    name = module.__name__.rpartition(".")[2]
    return Format(name, expects, evidence, module.matches, module.to_record, module.from_record, columns)


FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        _format(
            alpaca,
            "instruction, output",
            "has 'instruction' and 'output'",
            {"prompt": ("instruction",), "response": ("output",), **_SYSTEM},
        ),
        _format(
            sharegpt,
            "conversations: [{from, value}]",
            "'conversations' holds a list of {from, value}",
            {"messages": ("conversations",), **_SYSTEM},
        ),
        _format(
            openai,
            "messages: [{role, content}]",
            "'messages' holds a list of {role, content}",
            {"messages": ("messages",), **_SYSTEM},
        ),
        _format(
            prompt_completion,
            "prompt, completion or response",
            "has 'prompt' and 'completion' or 'response'",
            {**_PROMPT, **_ANSWER, **_SYSTEM},
        ),
        _format(
            question_answer,
            "question, answer",
            "has 'question' and 'answer'",
            {"prompt": ("question",), "response": ("answer",), **_SYSTEM},
        ),
        _format(
            prompts,
            "prompt or turns without an answer",
            "has 'prompt' or 'turns' and no answer",
            {"prompt": ("prompt", "turns"), **_SYSTEM},
        ),
        _format(text, "text", "has 'text'", {"text": ("text",)}),
        _format(
            preference,
            "prompt, chosen, rejected",
            "has 'chosen' and 'rejected'",
            {**_PROMPT, **_PAIR, **_SYSTEM},
        ),
        _format(
            sharegpt_preference,
            "conversations: [{from, value}], chosen, rejected",
            "'conversations' holds a list of {from, value} beside 'chosen' and 'rejected'",
            {"messages": ("conversations",), **_PAIR, **_SYSTEM},
        ),
        _format(
            unpaired,
            "prompt, completion or messages, and label",
            "has an answer and a label of true, false, 1 or 0",
            {**_PROMPT, **_ANSWER, "messages": ("messages", "conversations"), **_LABEL, **_SYSTEM},
        ),
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
