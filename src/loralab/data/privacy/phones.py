"""Telephone numbers, told from other numbers by their form and their surroundings."""

import re

_DIGITS = re.compile(r"[0-9](?:[ ().\-/]{0,3}[0-9]){6}")  # a quick first look
_TIMES = "\N{MULTIPLICATION SIGN}"
_BEFORE = r"(?<![\w.,+*/^=$€£¥#-])"
_AFTER = r"(?!\w|[-.,/:+*^][0-9])"
_INTERNATIONAL = re.compile(
    r"(?<![\w+*/^.-])"
    r"(?:\+(?:\([1-9][0-9]{0,3}\)[ ]?[0-9]{1,11}|[1-9][0-9]{0,14})|00[1-9][0-9]{0,2}(?=[ ./-]))"
    r"(?:[ .-]?\([0-9]{1,5}\)[ .-]?[0-9]{1,11}|(?:[ .-]|[ ]?/[ ]?)[0-9]{1,11}){0,7}" + _AFTER
)
_FORMS = (
    # (555) 123-4567 and 1 (555) 123-4567
    r"(?:1[ .-]?)?\([2-9][0-9]{2}\)[ -]?[0-9]{3}[ .-][0-9]{4}",
    # (030) 1234567 and (020) 7946 0958
    r"\(0[1-9][0-9]{1,3}\)[ -]?[0-9]{3,8}(?:[ -][0-9]{3,5})?",
    # (11) 91234-5678
    r"\([1-9][0-9]\)[ ]?[0-9]{4,5}-[0-9]{4}",
    # 555-123-4567, 555.123.4567 and 1-800-555-0199
    r"(?:1-(?=[0-9]{3}-)|1\.(?=[0-9]{3}\.))?[2-9][0-9]{2}([.-])(?!000)[0-9]{3}\1[0-9]{4}",
)
_GROUPED = re.compile(f"{_BEFORE}(?:{'|'.join(_FORMS)}){_AFTER}")
# 030 1234567, 020 7946 0958, 0171-1234567, 030 / 12 34 567, 01.23.45.67.89; 138 1234 5678 (China)
_TRUNK = re.compile(
    _BEFORE + r"(?:0[1-9][0-9]{1,3}[ ]?/[ ]?[0-9]{2,8}(?:[ -][0-9]{2,8}){0,3}"
    r"|0[1-9][0-9]{0,3}([ .-])[0-9]{2,8}(?:\1[0-9]{2,8}){0,3}"
    r"|1[3-9][0-9]([ -])[0-9]{4}\2[0-9]{4})" + _AFTER
)
_CUE_WORDS = ("phone", "tel", "mobil", "cell", "fax", "whatsapp", "hotline", "handy", "rufnummer", "call")
_TOLD = re.compile(
    r"\b(?:(?P<call>call)(?: me| us| him| her| them)?(?: at| on)?"
    r"|(?:(?:tele|cell)?phone|tel|mobile?|cell|fax|whatsapp|hotline|telefon|handy|rufnummer)"
    r"(?:[ \t]*(?:numbers?\b|no\b|nr\b|is\b|at\b|[.:=#\"'(]))+)"
    r"[ \t]*(?P<number>[0-9]{2,12}(?:[ .-][0-9]{2,8}){0,4})"
    rf"(?!\w|[-.,/:][0-9]|[ ]*[=*{_TIMES}÷%€$£])",
    re.IGNORECASE,
)
_ARITHMETIC_BEFORE = re.compile(rf"(?:[={_TIMES}÷^$€£¥]|[0-9)][ \t]*[-+*/])[ \t]*$")
_ARITHMETIC_AFTER = re.compile(rf"[ \t]*[=*{_TIMES}÷^%<>€£$¥]")
_COUNTED_AFTER = re.compile(
    r"[ \t]*(?:mg|kg|ml|km|cm|mm|usd|eur|dollars|euros|rupiah|bytes|tokens|steps|rows|users|units|people"
    r"|times|downloads|functions|views|years)\b",
    re.IGNORECASE,
)
_ISBN_BEFORE = re.compile(r"ISBN[\w -]{0,6}[: ]*$", re.IGNORECASE)
_YEARS = re.compile(r"(?:19|20)[0-9]{2}-(?:19|20)[0-9]{2}")
_LAST_GROUP = re.compile(r"[ .\-/(]+[0-9]+\)?$")

_INTERNATIONAL_DIGITS = range(8, 16)
_UNGROUPED_DIGITS = 10
_NORTH_AMERICAN_DIGITS = 11
_TRUNK_DIGITS = range(9, 13)
_TOLD_DIGITS = range(7, 13)
_MAX_SINGLE_DIGITS = 2
_DATE_PARTS = 3
_CONTEXT_CHARS = 16


def find_phones(text: str) -> list[tuple[int, int]]:
    """Returns the spans of telephone numbers.

    These are international numbers (`+` or 00 and 8 to 15 digits, ITU-T E.164), national numbers in
    their common grouped forms, and other digits after a word such as `phone:`. Numbers inside
    arithmetic, prices, amounts with a unit and rows of numbers are no telephone numbers. Without spaces
    an international number needs 10 digits, and behind 1 exactly 11, as +12345678 is more often a gain.
    """
    if not _DIGITS.search(text):
        return []
    spans = [match.span() for match in _GROUPED.finditer(text) if not _is_calculated(text, *match.span())]
    if "+" in text or "00" in text:
        spans += _find_international(text)
    spans += [match.span() for match in _TRUNK.finditer(text) if _is_trunk_number(text, *match.span())]
    lower = text.lower()
    if any(word in lower for word in _CUE_WORDS):
        spans += [match.span("number") for match in _TOLD.finditer(text) if _is_told(match)]
    return spans


def _find_international(text: str) -> list[tuple[int, int]]:
    spans = []
    for match in _INTERNATIONAL.finditer(text):
        written = match.group()
        while len(_digits(written)) > _INTERNATIONAL_DIGITS[-1] and _LAST_GROUP.search(written):
            written = _LAST_GROUP.sub("", written)
        start, end = match.start(), match.start() + len(written)
        groups = re.findall("[0-9]+", written)
        is_number = _has_international_length(written)
        is_row = sum(len(group) == 1 for group in groups) > _MAX_SINGLE_DIGITS
        follows_digit = text[max(0, start - _CONTEXT_CHARS) : start].rstrip()[-1:].isdigit()
        if is_number and not is_row and not follows_digit and not _is_calculated(text, start, end):
            spans.append((start, end))
    return spans


def _has_international_length(written: str) -> bool:
    digits = _digits(written)
    number = digits.removeprefix("00")
    if len(number) not in _INTERNATIONAL_DIGITS or set(digits) <= {"0", "1"}:
        return False
    is_ungrouped = written[1:].isdigit()
    if number[0] == "1" and (is_ungrouped or digits != number):
        return len(number) == _NORTH_AMERICAN_DIGITS
    return not is_ungrouped or len(number) >= _UNGROUPED_DIGITS


def _is_trunk_number(text: str, start: int, end: int) -> bool:
    written = text[start:end]
    groups = re.findall("[0-9]+", written)
    sizes = [len(group) for group in groups]
    are_pairs = sizes == [2] * 5
    if sum(sizes) not in _TRUNK_DIGITS or set(_digits(written)) <= {"0", "1"}:
        return False
    if "." in written and not are_pairs:
        return False
    if len(groups) > 3 and not are_pairs and sizes[0] < 3:  # noqa: PLR2004 - such as a date and a time
        return False
    is_counting = are_pairs and " " in written and groups == sorted(groups)
    are_dates = len(groups) >= _DATE_PARTS and all(group[0] == "0" for group in groups)
    if is_counting or are_dates:
        return False
    # A ZIP code with its four digits more, or a number of the US social security.
    is_other_code = sizes in ([5, 4], [3, 2, 4]) and "-" in written
    is_in_row = " " in written and _touches_digits(text, start, end)
    return not is_other_code and not is_in_row and not _is_calculated(text, start, end)


def _is_told(match: re.Match[str]) -> bool:
    written = match["number"]
    if len(_digits(written)) not in _TOLD_DIGITS or _YEARS.fullmatch(written):
        return False
    if _COUNTED_AFTER.match(match.string, match.end("number")):
        return False
    return not match["call"] or "-" in written or "." in written


def _is_calculated(text: str, start: int, end: int) -> bool:
    """Whether a number stands in arithmetic, a price, an amount with a unit or a book number."""
    before = text[max(0, start - _CONTEXT_CHARS) : start]
    return bool(
        _ARITHMETIC_BEFORE.search(before)
        or _ARITHMETIC_AFTER.match(text, end)
        or _COUNTED_AFTER.match(text, end)
        or _ISBN_BEFORE.search(before)
    )


def _touches_digits(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return (before[-1:] == " " and before[:1].isdigit()) or (after[:1] == " " and after[1:].isdigit())


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))
