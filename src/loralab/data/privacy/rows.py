"""Private data in whole rows: counts, what stands around it, and a row without it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loralab.data.privacy.findings import find_private, mask, mask_text
from loralab.data.records import Message, PreferencePair, Record, ToolCall, all_messages

MAX_DEPTH = 64
"""Levels of nesting of a tool call's arguments that are looked into."""
QUOTED_BEFORE, QUOTED_AFTER = 60, 90
"""Characters of a quotation before and from the beginning of a masked span."""


def scan_record(record: Record, kinds: Sequence[str]) -> dict[str, int]:
    """Counts the private spans of a row by kind, over contents, reasoning and arguments of tool calls.

    Kinds that do not occur are left out.

    Raises:
        ConfigError: A kind is unknown.
    """
    texts = (text for message in all_messages(record) for text in _read_texts(message))
    return dict(Counter(finding.kind for text in texts for finding in find_private(text, kinds)))


def quote_findings(record: Record, kinds: Sequence[str]) -> dict[str, str]:
    """Quotes for each kind what stands around its first private span, with every private span masked.

    Raises:
        ConfigError: A kind is unknown.
    """
    quotes: dict[str, str] = {}
    for message in all_messages(record):
        for text in _read_texts(message):
            findings = find_private(text, kinds)
            masked = mask(text, findings) if findings else text
            for number, finding in enumerate(findings):
                if finding.kind not in quotes:
                    start = len(mask(text[: finding.start], findings[:number]))
                    quotes[finding.kind] = _surroundings(masked, start)
    return quotes


def _surroundings(text: str, place: int) -> str:
    start, end = max(0, place - QUOTED_BEFORE), place + QUOTED_AFTER
    words = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{words}{'…' if end < len(text) else ''}"


def mask_record(record: Record, kinds: Sequence[str]) -> Record:
    """Returns the row with its private spans masked; the same object where there are none.

    Raises:
        ConfigError: A kind is unknown.
    """
    if not scan_record(record, kinds):
        return record
    if isinstance(record, PreferencePair):
        return replace(
            record,
            prompt=_mask_messages(record.prompt, kinds),
            chosen=_mask_messages(record.chosen, kinds),
            rejected=_mask_messages(record.rejected, kinds),
        )
    return replace(record, messages=_mask_messages(record.messages, kinds))


def _read_texts(message: Message) -> Iterator[str]:
    yield message.content
    if message.reasoning:
        yield message.reasoning
    for call in message.tool_calls:
        yield from _read_strings(call.arguments)


def _read_strings(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < MAX_DEPTH and isinstance(value, Mapping):
        for item in value.values():
            yield from _read_strings(item, depth + 1)
    elif depth < MAX_DEPTH and isinstance(value, list | tuple):
        for item in value:
            yield from _read_strings(item, depth + 1)


def _mask_messages(messages: Sequence[Message], kinds: Sequence[str]) -> tuple[Message, ...]:
    return tuple(
        replace(
            message,
            content=mask_strings(message.content, kinds),
            reasoning=mask_strings(message.reasoning, kinds),
            tool_calls=tuple(_mask_call(call, kinds) for call in message.tool_calls),
        )
        for message in messages
    )


def _mask_call(call: ToolCall, kinds: Sequence[str]) -> ToolCall:
    return replace(call, arguments=mask_strings(call.arguments, kinds))


def mask_strings(value: Any, kinds: Sequence[str], depth: int = 0) -> Any:
    """Returns a JSON value with the private spans of its strings masked, down to `MAX_DEPTH` levels.

    Args:
        value: The value; the names of its fields stay.
        kinds: What to mask.
        depth: Levels above the value.

    Raises:
        ConfigError: A kind is unknown.
    """
    if isinstance(value, str):
        return mask_text(value, kinds)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {key: mask_strings(item, kinds, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple):
        return [mask_strings(item, kinds, depth + 1) for item in value]
    return value
