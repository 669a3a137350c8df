"""The verdict on a row: which check it fails, and why."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from loralab.config.data import QualityConfig
from loralab.data.quality.language import check_languages, detect_language
from loralab.data.quality.measures import count_visible, measure_copy, measure_garble, measure_repetition
from loralab.data.quality.structure import find_fence_fault, find_json_fault, find_order_fault
from loralab.data.records import Message, PreferencePair, Record

SPOKEN_ROLES = ("user", "assistant", "text")
"""Roles whose turns must say something."""
ANSWER_ROLES = ("assistant", "text")
"""Roles whose turns are learned from, and so judged as answers."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Why a row is left out."""

    check: str
    """The field of `QualityConfig` that the row fails."""
    reason: str
    """What is wrong, such as `turn 2 (assistant) has 0 of at least 1 characters`."""


@dataclass(frozen=True, slots=True)
class _Dialogue:
    """One conversation of a row; a preference pair has two that share their first turns."""

    messages: tuple[Message, ...]
    label: str = ""
    num_judged: int = 0

    def turns(self, roles: tuple[str, ...]) -> Iterator[tuple[str, int, Message]]:
        """Yields the place of each turn of these roles in words, its index and the turn."""
        for index, message in enumerate(self.messages):
            if index >= self.num_judged and message.role in roles:
                yield _place(index, message), index, message


_Check = Callable[[_Dialogue], str]


class Judge:
    """Decides whether a row stays, by the checks that are switched on in `data.quality`.

    The checks `min_tokens` and `max_tokens` wait for the tokenized row and are not made here.
    """

    def __init__(self, config: QualityConfig) -> None:
        """Checks the options.

        Raises:
            ConfigError: A language is unknown, or its detector is not installed.
        """
        if config.languages is not None:
            check_languages(config.languages)
        self._config = config
        self._checks = _build_checks(config)

    def __reduce__(self) -> tuple[type["Judge"], tuple[QualityConfig]]:
        """Pickles the options alone; the detector of languages is loaded once in each process."""
        return Judge, (self._config,)

    def __call__(self, record: Record) -> Removal | None:
        """Returns the first check that the row fails, in the order of `QualityConfig`, or None."""
        dialogues = _read_dialogues(record)
        for name, check in self._checks.items():
            for dialogue in dialogues:
                fault = check(dialogue)
                if fault:
                    return Removal(name, f"{dialogue.label}{fault}")
        return None


def _build_checks(config: QualityConfig) -> Mapping[str, _Check]:
    """Returns the checks that are switched on, by their field of the config and in its order."""
    checks: dict[str, _Check] = {}
    if config.min_chars is not None:
        checks["min_chars"] = partial(_check_chars, config.min_chars)
    if config.role_order:
        checks["role_order"] = _check_order
    if config.max_repetition is not None:
        checks["max_repetition"] = partial(_check_repetition, config.max_repetition)
    if config.max_garble is not None:
        checks["max_garble"] = partial(_check_garble, config.max_garble)
    if config.languages is not None:
        checks["languages"] = partial(_check_language, tuple(config.languages))
    if config.max_prompt_copy is not None:
        checks["max_prompt_copy"] = partial(_check_copy, config.max_prompt_copy)
    if config.balanced:
        checks["balanced"] = _check_fences
    if config.json_response:
        checks["json_response"] = _check_json
    return checks


def _read_dialogues(record: Record) -> tuple[_Dialogue, ...]:
    if not isinstance(record, PreferencePair):
        return (_Dialogue(record.messages),)
    rejected = record.prompt + record.rejected
    return _Dialogue(record.messages, "chosen: "), _Dialogue(rejected, "rejected: ", len(record.prompt))


def _place(index: int, message: Message) -> str:
    return "the text" if message.role == "text" else f"turn {index + 1} ({message.role})"


def _check_chars(least: int, dialogue: _Dialogue) -> str:
    for place, _, message in dialogue.turns(SPOKEN_ROLES):
        num_chars = count_visible(message.content)
        if num_chars < least and not (message.role == "assistant" and message.tool_calls):
            return f"{place} has {num_chars} of at least {least} characters"
    return ""


def _check_order(dialogue: _Dialogue) -> str:
    return find_order_fault(dialogue.messages)


def _check_repetition(most: float, dialogue: _Dialogue) -> str:
    for place, _, message in dialogue.turns(ANSWER_ROLES):
        for text in (message.content, message.reasoning):
            share = measure_repetition(text)
            if share > most:
                return f"{place} repeats itself in {share:.0%} of its words, more than {most:.0%}"
    return ""


def _check_garble(most: float, dialogue: _Dialogue) -> str:
    for place, _, message in dialogue.turns((*SPOKEN_ROLES, "system", "tool")):
        for text in (message.content, message.reasoning):
            share = measure_garble(text)
            if share > most:
                return f"{place} has {share:.0%} garbled characters, more than {most:.0%}"
    return ""


def _check_language(allowed: tuple[str, ...], dialogue: _Dialogue) -> str:
    for place, _, message in dialogue.turns(ANSWER_ROLES):
        language = detect_language(message.content)
        if language is not None and language.code not in allowed:
            sure = f"with probability {language.probability:.2f}"
            return f"{place} is in {language.code!r} {sure}; allowed: {', '.join(allowed)}"
    return ""


def _check_copy(most: float, dialogue: _Dialogue) -> str:
    for place, index, message in dialogue.turns(("assistant",)):
        share = measure_copy(message.content, (earlier.content for earlier in dialogue.messages[:index]))
        if share > most:
            return f"{place} copies {share:.0%} of its 5-grams from the turns before it, more than {most:.0%}"
    return ""


def _check_fences(dialogue: _Dialogue) -> str:
    for place, _, message in dialogue.turns(ANSWER_ROLES):
        fault = find_fence_fault(message.content)
        if fault:
            return f"{place}: {fault}"
    return ""


def _check_json(dialogue: _Dialogue) -> str:
    for place, _, message in dialogue.turns(("assistant",)):
        fault = "" if message.tool_calls else find_json_fault(message.content)
        if fault:
            return f"{place} is no JSON: {fault}"
    return ""
