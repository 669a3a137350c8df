"""The language that an answer is written in, as py3langid sees it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, cast

from loralab.errors import ConfigError, did_you_mean

MIN_LETTERS = 20
"""Texts with fewer letters outside code fences are not judged: a detector would guess."""
MIN_PROBABILITY = 0.6
"""A language counts as detected from this probability on; below it the text is not judged."""
MAX_CHARS = 4000
"""Characters from the front of a text that are looked at."""

_NO_LANGUAGE = "zxx"
_FENCED_CODE = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Language:
    """What a text is written in."""

    code: str
    """ISO 639 code, of two letters where there is one."""
    probability: float
    """How sure the detector is; 0 to 1."""


class _Identifier(Protocol):
    labels: Sequence[str]

    def classify(self, text: str) -> tuple[str, float]:
        """Returns the likeliest language and its probability."""


def detect_language(text: str) -> Language | None:
    """Returns the language of a text, or None where it is too short, code, or in doubt.

    Raises:
        ConfigError: The detector is not installed.
    """
    prose = _FENCED_CODE.sub("", text[:MAX_CHARS])
    if sum(map(str.isalpha, prose)) < MIN_LETTERS:
        return None
    code, probability = _load_identifier().classify(prose)
    if code == _NO_LANGUAGE or probability < MIN_PROBABILITY:
        return None
    return Language(code, probability)


def check_languages(codes: Sequence[str]) -> None:
    """Checks the codes of `data.quality.languages` against what the detector knows.

    Raises:
        ConfigError: The list is empty, a code is unknown, or the detector is not installed.
    """
    if not codes:
        raise ConfigError(
            "data.quality.languages=[] allows no language. Give ISO 639-1 codes such as [en,de], "
            "or null to switch the check off."
        )
    known = sorted(set(_load_identifier().labels) - {_NO_LANGUAGE})
    for code in codes:
        if code not in known:
            close = did_you_mean(code.lower(), known)
            raise ConfigError(
                f"data.quality.languages: {code!r} is no language that the detector knows.{close} "
                f"Known: {', '.join(known)}."
            )


@lru_cache(maxsize=1)
def _load_identifier() -> _Identifier:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError(
            "data.quality.languages needs the package py3langid. "
            'Install it with: pip install "loralab[language]"'
        ) from None
    return cast(_Identifier, LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True))
