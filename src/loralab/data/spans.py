"""Which turns are learned, with what weight, and where a turn lies in a rendered text."""

import math
from collections.abc import Sequence

from loralab.data.records import Message
from loralab.errors import ConfigError, DataError, did_you_mean

SUPERVISE = ("assistant", "last", "all")
"""Values of `data.supervise` beside a list of assistant turns."""


def check_supervise(supervise: str | Sequence[int]) -> str | tuple[int, ...]:
    """Returns a value of `data.supervise` in its own form.

    Raises:
        ConfigError: It is neither a known word nor a list of turns.
    """
    if isinstance(supervise, str):
        if supervise in SUPERVISE:
            return supervise
    elif isinstance(supervise, Sequence) and supervise and all(type(turn) is int for turn in supervise):
        turns = tuple(map(int, supervise))
        if 0 in turns:
            raise ConfigError(
                f"data.supervise={list(turns)}: assistant turns are counted from 1, from the end with -1."
            )
        return turns
    close = did_you_mean(supervise, SUPERVISE) if isinstance(supervise, str) else ""
    raise ConfigError(
        f"data.supervise={supervise!r} is unknown: use assistant, last, all, or a list of assistant turns "
        f"such as [1,-1].{close}"
    )


def turn_weights(messages: Sequence[Message], supervise: str | Sequence[int]) -> dict[int, float]:
    """Weight of each turn to learn, by its place from 0; a message's own weight goes before `supervise`.

    With `all` no turn is told from another, so messages must not have weights and none is returned.

    Raises:
        DataError: A weight stands on a turn that is not the assistant's, or is negative or not finite.
    """
    for turn, message in enumerate(messages):
        if message.weight is not None:
            _check_weight(message, message.weight, turn, supervise)
    if supervise == "all":
        return {}
    answers = [turn for turn, message in enumerate(messages) if message.role == "assistant"]
    wanted = [-1] if supervise == "last" else supervise
    if supervise == "assistant":
        chosen = set(answers)
    else:
        places = [number - 1 if number > 0 else len(answers) + number for number in map(int, wanted)]
        chosen = {answers[place] for place in places if 0 <= place < len(answers)}
    weights = {}
    for turn in answers:
        own = messages[turn].weight
        weight = (1.0 if turn in chosen else 0.0) if own is None else own
        if weight > 0:
            weights[turn] = weight
    return weights


def _check_weight(message: Message, weight: float, turn: int, supervise: str | Sequence[int]) -> None:
    place = f"turn {turn + 1} ({message.role}) has the weight {weight:g}"
    if not (math.isfinite(weight) and weight >= 0):
        raise DataError(f"{place}: a weight is a number of 0 or more.")
    if supervise == "all":
        raise DataError(
            f"{place}, but data.supervise=all learns every token alike. Take the weights out of the rows or "
            "use data.supervise=assistant."
        )
    if message.role != "assistant" and weight > 0:
        raise DataError(f"{place}: only assistant turns are learned, or the whole text with supervise=all.")


def turn_in_place(message: Message, turn: int, alone: str, end: tuple[int, int] | None, text: str) -> str:
    """Returns what a template writes for an assistant turn inside a longer text, end-of-turn token included.

    A template may write the last turn otherwise than an earlier one (Qwen3 puts empty thoughts before it).
    The turn as it stands last is known exactly; inside the longer text it may lack its beginning, but not
    what the row says.

    Args:
        message: The turn.
        turn: Its place from 0, for messages.
        alone: The turn as the template writes it where it is the last one, to the end of that text.
        end: Where its end-of-turn token starts and ends in `alone`, if there is one.
        text: The longer text from where the turn begins.

    Raises:
        DataError: The template changes the turn, leaves a part of it out, or writes no end-of-turn token.
    """
    content = message.content.strip()
    if end is None:
        if content not in alone:
            raise _changed(turn)
        raise DataError(
            f"the chat template does not end turn {turn + 1} with a special token: the model would never "
            "learn to stop. Use data.chat_template=FILE."
        )
    _check_written(message, turn, alone[: end[0]])
    said = alone[: end[1]]
    if text.startswith(said):
        return said
    # What must not be missing begins here, at the latest.
    limit = end[0]
    if content:
        limit = said.rfind(content, 0, end[0])
    elif message.tool_calls:
        limit = said.find(message.tool_calls[0].name)
    head = text[: min(8, len(said) - limit)]
    start = said.find(head, 1, limit + len(head))
    while start >= 0 and not text.startswith(said[start:]):
        start = said.find(head, start + 1, limit + len(head))
    if start < 0 or limit < 0:
        raise _changed(turn)
    _check_written(message, turn, said[start : end[0]])
    return said[start:]


def _check_written(message: Message, turn: int, body: str) -> None:
    content, written = message.content.strip(), body.rstrip()
    if not _holds(written, content, at_end=not message.tool_calls):
        raise _changed(turn)
    if any(call.name not in body for call in message.tool_calls):
        raise DataError(
            f"the chat template leaves out the tool calls of turn {turn + 1}. Use data.chat_template=NAME of "
            "a template that writes them, such as qwen2_5."
        )
    if not _holds(written, message.reasoning.strip(), at_end=False):
        raise DataError(
            f"the chat template leaves out the reasoning of turn {turn + 1}, so the model would learn to "
            "answer without it. Learn the last turn only with data.supervise=last, or use "
            "data.chat_template=NAME of a template that writes it, such as qwen3."
        )


def _holds(written: str, wanted: str, *, at_end: bool) -> bool:
    if written.endswith(wanted) if at_end else wanted in written:
        return True
    # Templates may set white space of their own around thoughts.
    written, wanted = "".join(written.split()), "".join(wanted.split())
    return written.endswith(wanted) if at_end else wanted in written


def _changed(turn: int) -> DataError:
    return DataError(f"the chat template changes the text of turn {turn + 1}. Use data.chat_template=FILE.")
