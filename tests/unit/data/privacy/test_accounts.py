"""Payment cards and bank accounts by their check digits."""

import pytest

from loralab.data.privacy.accounts import IBAN_LENGTHS, find_cards, find_ibans


def cards(text: str) -> list[str]:
    return [text[start:end] for start, end in find_cards(text)]


def ibans(text: str) -> list[str]:
    return [text[start:end] for start, end in find_ibans(text)]


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "30569309025904",
        "3056 930902 5904",
        "3530111333300000",
        "6200000000000005",
        "2200000000000004",
    ],
)
def test_test_numbers_of_the_networks_are_found(number: str) -> None:
    assert cards(f"pay with {number}, please") == [number]


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # a wrong check digit
        "1111111111111117",  # no issuer; the check digit is right
        "2900000000000007",  # no issuer either; 29 is given to none
        "411111111111111",  # too short for its issuer
        "4111 111111111111",  # no printed groups
        "4111 1111-1111 1111",
        "0.4111111111111111",
        "4111111111111111.5",
        "id4111111111111111",
        "4111-1111-1111-1111-2222",
        "1 4111 1111 1111 1111 2",
        "+4111111111111111",
        "4222222222222",  # 13 digits and nothing that speaks of cards
    ],
)
def test_other_long_numbers_are_no_cards(text: str) -> None:
    assert cards(text) == []


def test_thirteen_digits_need_a_word_of_cards() -> None:
    assert cards("my Visa: 4222222222222") == ["4222222222222"]


# Examples of the SWIFT registry.
@pytest.mark.parametrize(
    "number",
    [
        "DE89 3704 0044 0532 0130 00",
        "DE89370400440532013000",
        "de89370400440532013000",
        "GB29 NWBK 6016 1331 9268 19",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO9386011117947",
        "MT84MALT011000012345MTLCAST001S",
        "CH93-0076-2011-6238-5295-7",
        "SA0380000000608010167519",
        "BE68 5390 0754 7034",
    ],
)
def test_registered_examples_are_found(number: str) -> None:
    assert ibans(f"IBAN: {number} AND MORE") == [number]


@pytest.mark.parametrize(
    "text",
    [
        "DE88370400440532013000",  # a wrong check number
        "DE8937040044053201300",  # too short
        "DE893704004405320130001",  # too long
        "XX89370400440532013000",  # no country
        "XDE89370400440532013000",
        "89370400440532013000",
        "DE89",
        "DE89  3704 0044 0532 0130 00",
        "SHA: de89370400440532013000ff",
    ],
)
def test_other_codes_are_no_accounts(text: str) -> None:
    assert ibans(text) == []


def test_the_table_of_countries_is_complete() -> None:
    assert len(IBAN_LENGTHS) == 89
    assert {IBAN_LENGTHS[country] for country in ("DE", "GB", "IE")} == {22}
