"""Variety for the train split: invented words, and remarks before or after a request.

A model of this size would otherwise learn the names and things of 800 rows by heart and answer with them.
Words that exist nowhere can only be copied.
"""

import random
from collections.abc import Mapping

OPENERS = (
    "Hello!", "Quick one.", "Good morning.", "One more.", "Sorry for the hurry.", "Okay then.", "Next job.",
    "I nearly missed this.", "Before it gets late:", "Busy day.", "Hey assistant!", "Something small.",
    "While you are there:", "New request.", "It's me again.", "Guess what.", "No rush.", "Right.",
)  # fmt: skip
"""Remarks that may stand before a request and change nothing about its answer."""

CLOSERS = (
    "Thanks!", "Cheers.", "That is all.", "Much obliged.", "You are a star.", "Bye for now.", "Great.",
    "Nothing else today.", "As always.", "Thank you so much.", "And that's it.", "Appreciate it.",
)  # fmt: skip
"""Remarks that may stand after a request."""

_ONSETS = (
    "b", "bl", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "g", "gl", "gr", "h", "j", "k", "kl", "l", "m",
    "n", "p", "pl", "qu", "r", "s", "sh", "sk", "st", "t", "tr", "v", "w", "y", "z",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou", "y")
_CODAS = ("", "", "l", "n", "r", "s", "m", "th", "nd", "rk", "x", "ld", "ck")
_NAMES = frozenset({"person", "song", "artist"})
_INVENTED_SHARE = 0.5
_REMARK_SHARE = 0.25


def invent_word(rng: random.Random) -> str:
    """Strings two or three syllables together into a word that exists nowhere."""
    syllables = rng.choice((2, 2, 3))
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))


def vary_value(kind: str, value: str, rng: random.Random) -> str:
    """Puts an invented word into about half of the open values.

    Args:
        kind: Kind of open value, such as `person` or `item`.
        value: The value from the pool.
        rng: Decides whether and what.
    """
    if rng.random() >= _INVENTED_SHARE:
        return value
    word = invent_word(rng)
    if kind == "person":
        return word.capitalize()
    words = value.split()
    # The last word of a phrase of several gives way; a single word gets a companion.
    kept = words[:-1] if len(words) > 1 else words
    return " ".join([*kept, word.capitalize() if kind in _NAMES else word])


def vary_filling(
    filling: Mapping[str, str | int], kinds: Mapping[str, str], rng: random.Random
) -> dict[str, str | int]:
    """Varies the open values of a request.

    Args:
        filling: Slot values by key.
        kinds: Kind of open value by key; other keys stay as they are.
        rng: Decides whether and what.
    """
    return {
        key: vary_value(kinds[key], str(value), rng) if key in kinds else value
        for key, value in filling.items()
    }


def add_remarks(request: str, rng: random.Random) -> str:
    """Puts a remark before a quarter of the requests and, where a sentence ends, after a quarter."""
    before = f"{rng.choice(OPENERS)} " if rng.random() < _REMARK_SHARE else ""
    ends = request.endswith((".", "?", "!"))
    after = f" {rng.choice(CLOSERS)}" if rng.random() < _REMARK_SHARE and ends else ""
    return before + request + after
