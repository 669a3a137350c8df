"""Findings of all kinds in one text, and masks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.privacy import FINDERS, Finding, find_private, mask
from loralab.errors import ConfigError

KINDS = tuple(FINDERS)
PIECES = [
    "ann@example.com",
    "+49 30 1234567",
    "+491234567",
    "(555) 123-4567",
    "555-123-4567",
    "030 1234567",
    "01 45 23 67 89",
    "4111 1111 1111 1111",
    "378282246310005",
    "DE89 3704 0044 0532 0130 00",
    "gh" + "p_" + "aB3dE5fG7h" * 4,
    "password=",
    "x9Kq7!vR2m",
    "tel: ",
    "555-0199",
    *" -.,@+:=/0175aZ(\n",
]
texts = st.text() | st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)


def test_findings_are_sorted_and_masked_in_place() -> None:
    text = "Pay 4111 1111 1111 1111, call (555) 123-4567 or write to ann@example.com!"
    findings = find_private(text, KINDS)
    assert findings == [Finding("card", 4, 23), Finding("phone", 30, 44), Finding("email", 57, 72)]
    assert mask(text, findings) == "Pay [CARD], call [PHONE] or write to [EMAIL]!"


def test_only_the_kinds_asked_for_are_found() -> None:
    text = "ann@example.com, DE89 3704 0044 0532 0130 00"
    assert mask(text, find_private(text, ["iban"])) == "ann@example.com, [IBAN]"
    assert find_private(text, []) == []


def test_the_longest_of_overlapping_findings_wins() -> None:
    text = "password='ann1!" + "Qx@mail.org'"
    assert find_private(text, ["email"]) == [Finding("email", 15, 26)]
    assert find_private(text, KINDS) == [Finding("secret", 10, 26)]


def test_the_most_specific_of_equal_findings_wins() -> None:
    text = "password='Qx7annKz9" + "@mail.org'"
    assert find_private(text, ["email"]) == [Finding("email", 10, 28)]
    assert find_private(text, KINDS) == [Finding("secret", 10, 28)]


def test_a_number_beside_a_found_one_is_found_too() -> None:
    text = "+49 30 1234567 +49 30 7654321"
    assert mask(text, find_private(text, ["phone"])).count("[PHONE]") >= 1
    assert "7654321" not in mask(text, find_private(text, ["phone"]))


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"data\.privacy\.kinds: 'mail' is unknown.*email.*Known: .*phone"):
        find_private("x", ["mail"])


@given(texts)
def test_findings_lie_in_the_text_apart_from_each_other(text: str) -> None:
    end = 0
    for finding in find_private(text, KINDS):
        assert end <= finding.start < finding.end <= len(text)
        assert finding.kind in KINDS
        end = finding.end


@given(texts)
def test_a_mask_keeps_everything_outside_the_findings(text: str) -> None:
    findings = find_private(text, KINDS)
    rest = mask(text, findings)
    end = 0
    for finding in findings:
        kept = text[end : finding.start] + f"[{finding.kind.upper()}]"
        assert rest.startswith(kept)
        rest, end = rest[len(kept) :], finding.end
    assert rest == text[end:]


@given(texts)
def test_a_masked_text_has_no_findings(text: str) -> None:
    assert find_private(mask(text, find_private(text, KINDS)), KINDS) == []


@given(st.text(alphabet=st.characters(), max_size=50))
def test_odd_characters_do_no_harm(text: str) -> None:
    whole = "\ud800" + text + "@\udfff.com 4111 1111 1111 1111"
    found = find_private(whole, KINDS)
    assert all(0 <= finding.start < finding.end <= len(whole) for finding in found)
