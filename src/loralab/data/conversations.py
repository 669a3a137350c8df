"""From a data file to validated conversations."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from loralab.data.formats.columns import explain_columns, rename_columns
from loralab.data.formats.detection import choose_format
from loralab.data.formats.registry import Format, check_format
from loralab.data.records import ROLES, Conversation, Message
from loralab.data.sources import Row, read_rows
from loralab.errors import DataError

MAX_SHOWN_FAULTS = 5
"""Faulty rows that one message shows; the rest are counted."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def load_conversations(path: Path, form: str, columns: dict[str, str]) -> list[Conversation]:
    """Reads, converts and validates every row of a data file.

    Args:
        path: A JSON or JSONL file.
        form: `auto`, or the name of a form in `FORMATS`.
        columns: The row's field for each of our names (prompt, response, system, text, messages)
            that the user mapped.

    Raises:
        DataError: The file, the form, the columns, or some of the rows cannot be used.
    """
    check_format(form)
    rows = read_rows(path)
    try:
        chosen = choose_format(rows, form, columns)
    except DataError as error:
        raise DataError(f"data.path={str(path)!r}: {error}") from None

    converted: list[tuple[Row, tuple[Message, ...]]] = []
    faults: list[tuple[Row, str]] = []
    for row in rows:
        try:
            converted.append((row, _convert(row, chosen, columns)))
        except DataError as error:
            faults.append((row, str(error)))
    if not faults and not _has_target(messages for _, messages in converted):
        raise DataError(
            f"data.path={str(path)!r}: no assistant turns: nothing to train on. Give rows with answers, "
            "or map the answers with data.columns.response=<field>."
        )
    for row, messages in converted:
        fault = find_fault(messages)
        if fault:
            faults.append((row, fault))
    if faults:
        faults.sort(key=lambda entry: entry[0].line)
        raise DataError(_summarize_faults(path, faults, len(rows)))
    return [Conversation(messages, str(path), row.line) for row, messages in converted]


def find_fault(messages: Sequence[Message]) -> str:
    """Returns why a conversation cannot be trained on, or an empty string when it can."""
    if not messages:
        return "the conversation is empty; at least one turn is needed"
    for number, message in enumerate(messages, start=1):
        fault = _find_turn_fault(message, number, len(messages))
        if fault:
            return fault
    if messages[0].role == "text":
        return ""
    if all(message.role != "assistant" for message in messages):
        return "there is no assistant turn; add the answer"
    if messages[-1].role != "assistant":
        return f"the last turn is of role {messages[-1].role!r}; end the row with the assistant's answer"
    return ""


def _has_target(conversations: Iterable[Sequence[Message]]) -> bool:
    trained = ("assistant", "text")
    return any(message.role in trained for messages in conversations for message in messages)


def _convert(row: Row, form: Format, columns: Mapping[str, str]) -> tuple[Message, ...]:
    fields = rename_columns(row.fields, columns, (form,))
    try:
        return form.to_messages(fields)
    except DataError as error:
        raise DataError(explain_columns(str(error), columns, form)) from None


def _find_turn_fault(message: Message, number: int, num_turns: int) -> str:
    if message.role not in ROLES:
        return f"turn {number} has the unknown role {message.role!r}; known: {', '.join(ROLES)}"
    if message.role == "text" and num_turns > 1:
        return f"turn {number} is a plain text among turns; a text stands alone"
    if message.role == "system" and number > 1:
        return f"turn {number} is a system turn; only the first turn may be one"
    if message.role in ("assistant", "text") and not message.content.strip():
        what = "the text" if message.role == "text" else f"the assistant's text in turn {number}"
        return f"{what} is empty; fill it in or remove the row"
    if _LONE_SURROGATE.search(message.content):
        return f"turn {number} holds half of a surrogate pair, which no tokenizer can encode; remove it"
    return ""


def _summarize_faults(path: Path, faults: Sequence[tuple[Row, str]], num_rows: int) -> str:
    if len(faults) == 1:
        row, fault = faults[0]
        return f"data.path={str(path)!r} {row.place}: {fault}"
    shown = "; ".join(f"{row.place}: {fault}" for row, fault in faults[:MAX_SHOWN_FAULTS])
    more = len(faults) - MAX_SHOWN_FAULTS
    rest = f"; and {more} more" if more > 0 else ""
    return f"data.path={str(path)!r}: {len(faults)} of {num_rows} rows cannot be used: {shown}{rest}"
