"""What becomes of an example that is longer than allowed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from loralab.data.masking import Encoded
from loralab.data.records import Conversation

CUTS = ("cut_response", "cut_oldest", "cut_prompt")
"""The policies that shorten chats; a plain document is cut into windows."""
MAX_CUTS = 8
"""Attempts at cutting a prompt: each render can tokenize a little differently at the cut."""

Encode = Callable[[Conversation], Encoded]
"""Renders and tokenizes one conversation."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """An example within the limit."""

    encoded: Encoded
    """Its tokens."""
    conversation: Conversation
    """What they say, without turns and text of user turns that were cut; a cut answer stands whole."""
    is_cut: bool = False
    """Whether something of the row is missing in it."""
    ends_open: bool = False
    """Whether its last answer was cut, so that its end-of-turn token is not there to be learned."""


def fit(
    encoded: Encoded, conversation: Conversation, policy: str, max_length: int, encode: Encode
) -> list[Fitted]:
    """Makes an example fit into `max_length` tokens; an empty list means that it is dropped.

    Special tokens and the template's own text are never cut: what shrinks is the text of a turn, whole
    turns, or the end of an answer.

    Args:
        encoded: The whole row.
        conversation: What it says.
        policy: drop, raise, cut_response, cut_oldest, cut_prompt or window.
        max_length: Most tokens.
        encode: Renders and tokenizes a changed conversation.
    """
    if len(encoded.input_ids) <= max_length:
        return [Fitted(encoded, conversation)]
    if conversation.is_text:
        return _windows(encoded, conversation, max_length) if policy == "window" else []
    if policy == "cut_response":
        return _cut_response(encoded, conversation, max_length, encode)
    if policy == "cut_oldest":
        return _cut_oldest(conversation, max_length, encode)
    if policy == "cut_prompt":
        return _cut_prompt(encoded, conversation, max_length, encode)
    return []


def explain_drop(length: int, is_text: bool, policy: str) -> str:
    """Says why a row over the limit was left out, and which policy would keep a part of it.

    Args:
        length: Tokens of the row.
        is_text: Whether it is a plain document.
        policy: The policy under which it was left out.
    """
    reason = f"the row has {length} tokens"
    if is_text and policy in CUTS:
        return f"{reason}; data.over_length={policy} shortens chats only: plain texts take window"
    if not is_text and policy == "window":
        return f"{reason}; data.over_length=window cuts plain texts only: chats take {', '.join(CUTS)}"
    return f"{reason}, too many for data.over_length={policy}" if policy in CUTS else reason


def _cut_response(
    encoded: Encoded, conversation: Conversation, max_length: int, encode: Encode
) -> list[Fitted]:
    reached = [span for span in encoded.spans if span[0] < max_length]
    if not reached:
        return []
    start, end, weight = reached[-1]
    cut = min(end, max_length)
    if cut <= max(start, 1):
        return []
    spans = (*reached[:-1], (start, cut, weight))
    # What is left of the turns: up to the answer that the cut falls into or follows.
    ends = [place for place, turn in enumerate(conversation.messages, start=1) if turn.role == "assistant"]
    heads = (replace(conversation, messages=conversation.messages[:end]) for end in ends)
    left = next((head for head in heads if len(encode(head).input_ids) >= cut), conversation)
    return [Fitted(Encoded(encoded.input_ids[:cut], spans), left, True, cut < end)]


def _cut_oldest(conversation: Conversation, max_length: int, encode: Encode) -> list[Fitted]:
    has_system = conversation.messages[0].role == "system"
    head, turns = conversation.messages[:has_system], conversation.messages[has_system:]
    starts = [place for place, turn in enumerate(turns) if turn.role == "user" and place > 0]
    for start in starts:
        shorter = replace(conversation, messages=(*head, *turns[start:]))
        encoded = encode(shorter)
        if len(encoded.input_ids) <= max_length:
            return [Fitted(encoded, shorter, True)]
    return []


def _cut_prompt(
    encoded: Encoded, conversation: Conversation, max_length: int, encode: Encode
) -> list[Fitted]:
    """Takes text from the front of the longest user turn: what is asked mostly stands at its end."""
    users = [place for place, turn in enumerate(conversation.messages) if turn.role == "user"]
    if not users:
        return []
    place = max(users, key=lambda at: len(conversation.messages[at].content))
    messages = list(conversation.messages)
    for _ in range(MAX_CUTS):
        content, excess = messages[place].content, len(encoded.input_ids) - max_length
        # In characters: as many as the excess takes at this text's own rate, and a few more each time.
        rate = sum(len(turn.content) for turn in messages) / len(encoded.input_ids)
        num_chars = max(1, int(excess * max(rate, 1.0)) + 1)
        if num_chars >= len(content):
            return []
        messages[place] = replace(messages[place], content=content[num_chars:].lstrip())
        cut = replace(conversation, messages=tuple(messages))
        encoded = encode(cut)
        if len(encoded.input_ids) <= max_length:
            return [Fitted(encoded, cut, True)]
    return []


def _windows(encoded: Encoded, conversation: Conversation, max_length: int) -> list[Fitted]:
    """Cuts a document into windows that share one token, so that each token after the first is predicted."""
    fitted, total = [], len(encoded.input_ids)
    for low in range(0, total - 1, max_length - 1):
        high = min(low + max_length, total)
        first = low + (low > 0)
        spans = tuple(
            (max(start, first) - low, min(end, high) - low, weight)
            for start, end, weight in encoded.spans
            if start < high and end > first
        )
        window = Encoded(encoded.input_ids[low:high], spans)
        if window.num_supervised:
            fitted.append(Fitted(window, conversation, False, high < total))
    return fitted
