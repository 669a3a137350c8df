"""Numbers of payment cards and bank accounts, told from other numbers by their check digits."""

import re

_CARD = re.compile(r"(?<![\w.+-])(?:[2-6])[0-9](?:[ -]?[0-9]){11,17}(?![\w]|[.,:/-][0-9]|[ -][0-9])")
# Printed groups: 4-4-4-4, 4-6-5 (American Express), 4-6-4 (Diners), 4-4-4-4-3, 4-4-5.
_CARD_GROUPS = ((4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 5))
_CARD_DIGITS = re.compile(r"[0-9](?:[ -]?[0-9]){12}")  # a quick first look
_CARD_WORDS = re.compile("card|visa|credit|payment", re.IGNORECASE)
_OLD_CARD = 13

# First and last issuer prefix, fewest and most digits, as the networks publish them.
_ISSUERS = (
    ("4", "4", 13, 19),  # Visa
    ("51", "55", 16, 16),  # Mastercard
    ("2221", "2720", 16, 16),  # Mastercard
    ("34", "34", 15, 15),  # American Express
    ("37", "37", 15, 15),  # American Express
    ("6011", "6011", 16, 19),  # Discover
    ("644", "659", 16, 19),  # Discover
    ("300", "305", 14, 19),  # Diners Club
    ("36", "36", 14, 19),  # Diners Club
    ("38", "39", 16, 19),  # Diners Club
    ("3528", "3589", 16, 19),  # JCB
    ("62", "62", 16, 19),  # UnionPay
    ("2200", "2204", 16, 19),  # Mir
    ("5018", "5018", 13, 19),  # Maestro, as the next ones
    ("5020", "5020", 13, 19),
    ("5038", "5038", 13, 19),
    ("6304", "6304", 13, 19),
    ("6759", "6763", 13, 19),
)

# Characters of an IBAN and the countries that use them, of the SWIFT IBAN registry, release 101.
_COUNTRIES_BY_LENGTH = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
IBAN_LENGTHS = {
    country: length for length, names in _COUNTRIES_BY_LENGTH.items() for country in names.split()
}
"""Characters of an IBAN by ISO 3166 country code."""

# Begins at the digits, which are rarer than letters, and looks back for the country.
_IBAN_CHECK_DIGITS = re.compile(r"[0-9](?<=[A-Za-z]{2}[0-9])(?<![A-Za-z0-9][A-Za-z]{2}[0-9])[0-9]")
_ALPHANUMERIC = re.compile("[A-Za-z0-9]")
_IBAN_BODY = {
    length: re.compile(rf"[A-Za-z0-9]{{4}}(?:[ -]?[A-Za-z0-9]){{{length - 4}}}(?![A-Za-z0-9])")
    for length in _COUNTRIES_BY_LENGTH
}


def find_cards(text: str) -> list[tuple[int, int]]:
    """Returns the spans of payment card numbers: 13 to 19 digits, plain or in their printed groups.

    A number needs the prefix and length of an issuer and a check digit by the Luhn formula
    (ISO/IEC 7812-1, annex B). The 13 digits of old Visa cards also need a word such as `card` in the text,
    since one in a hundred other numbers of that length would pass.
    """
    if not _CARD_DIGITS.search(text):
        return []
    is_announced = _CARD_WORDS.search(text) is not None
    return [match.span() for match in _CARD.finditer(text) if _is_card(match.group(), is_announced)]


def find_ibans(text: str) -> list[tuple[int, int]]:
    """Returns the spans of international bank account numbers, plain or in groups.

    A number needs the length of its country and a remainder of 1 by 97 (ISO 13616-1; ISO 7064, MOD 97-10).
    """
    spans = []
    for digits in _IBAN_CHECK_DIGITS.finditer(text):
        start = digits.start() - 2
        length = IBAN_LENGTHS.get(text[start : start + 2].upper())
        body = _IBAN_BODY[length].match(text, start) if length else None
        if body and _has_iban_remainder("".join(_ALPHANUMERIC.findall(body.group()))):
            spans.append(body.span())
    return spans


def _is_card(written: str, is_announced: bool) -> bool:
    groups = re.split("[ -]", written)
    if len(groups) > 1 and (tuple(map(len, groups)) not in _CARD_GROUPS or {" ", "-"} <= set(written)):
        return False
    digits = "".join(groups)
    is_expected = is_announced or len(digits) > _OLD_CARD
    return is_expected and _has_issuer(digits) and _has_luhn_sum(digits)


def _has_issuer(digits: str) -> bool:
    return any(
        first <= digits[: len(first)] <= last and fewest <= len(digits) <= most
        for first, last, fewest, most in _ISSUERS
    )


def _has_luhn_sum(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value  # noqa: PLR2004 - the sum of its two digits
    return total % 10 == 0


def _has_iban_remainder(iban: str) -> bool:
    rotated = iban[4:] + iban[:4]
    return int("".join(str(int(char, 36)) for char in rotated)) % 97 == 1
