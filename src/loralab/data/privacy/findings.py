"""Private spans of one text, and a text without them."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loralab.config.data import PrivacyConfig
from loralab.data.privacy.accounts import find_cards, find_ibans
from loralab.data.privacy.credentials import find_secrets
from loralab.data.privacy.emails import find_emails
from loralab.data.privacy.phones import find_phones
from loralab.errors import ConfigError, did_you_mean

FINDERS: dict[str, Callable[[str], list[tuple[int, int]]]] = {
    "secret": find_secrets,
    "iban": find_ibans,
    "card": find_cards,
    "email": find_emails,
    "phone": find_phones,
}
"""The finder of each kind, the most specific first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A private span of a text."""

    kind: str
    """One of `FINDERS`."""
    start: int
    """Where it begins, in characters."""
    end: int
    """Where it ends; exclusive."""


def check_kinds(kinds: Iterable[str]) -> None:
    """Checks the names of `data.privacy.kinds`.

    Raises:
        ConfigError: A kind is unknown.
    """
    for kind in kinds:
        if kind not in FINDERS:
            raise ConfigError(
                f"data.privacy.kinds: {kind!r} is unknown.{did_you_mean(kind, FINDERS)} "
                f"Known: {', '.join(FINDERS)}."
            )


def find_private(text: str, kinds: Sequence[str]) -> list[Finding]:
    """Returns the private spans of a text, sorted by place and without overlap.

    Where spans overlap the longest wins, then the most specific kind. What is found counts as a border
    for the rest of the text, so that a masked text has no findings.

    Raises:
        ConfigError: A kind is unknown.
    """
    check_kinds(kinds)
    found: list[Finding] = []
    rest = text
    while True:
        spans = [
            (kind, start, end) for kind in FINDERS if kind in kinds for start, end in FINDERS[kind](rest)
        ]
        if not spans:
            return sorted(found, key=lambda finding: finding.start)
        chosen = _choose(spans)
        found += chosen
        rest = _blank(rest, chosen)


def mask(text: str, findings: Iterable[Finding]) -> str:
    """Returns the text with each finding replaced by its kind in brackets, such as `[EMAIL]`."""
    return _replace(text, findings, lambda finding: f"[{finding.kind.upper()}]")


def mask_text(text: str, kinds: Sequence[str]) -> str:
    """Returns the text with its private spans masked.

    Raises:
        ConfigError: A kind is unknown.
    """
    return mask(text, find_private(text, kinds))


def quoted_kinds(privacy: PrivacyConfig) -> tuple[str, ...]:
    """Returns the kinds that are masked where a report quotes a row: none where nothing is looked for."""
    return () if privacy.action == "none" else tuple(privacy.kinds)


def _blank(text: str, findings: Iterable[Finding]) -> str:
    """Replaces findings by fillers of their length that end in brackets as a mask does."""
    return _replace(text, findings, lambda finding: "[" + "X" * (finding.end - finding.start - 2) + "]")


def _replace(text: str, findings: Iterable[Finding], write: Callable[[Finding], str]) -> str:
    parts, end = [], 0
    for finding in sorted(findings, key=lambda finding: finding.start):
        parts += [text[end : finding.start], write(finding)]
        end = finding.end
    return "".join([*parts, text[end:]])


def _choose(spans: list[tuple[str, int, int]]) -> list[Finding]:
    """Picks spans that do not overlap: the longest first, of equal ones the first in `spans`."""
    chosen: list[Finding] = []
    for kind, start, end in sorted(spans, key=lambda span: span[1] - span[2]):
        place = bisect_left(chosen, start, key=lambda finding: finding.start)
        is_after = place == 0 or chosen[place - 1].end <= start
        is_before = place == len(chosen) or end <= chosen[place].start
        if is_after and is_before:
            chosen.insert(place, Finding(kind, start, end))
    return chosen
