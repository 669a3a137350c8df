"""What is an e-mail address, and what only looks like one."""

import pytest

from loralab.data.privacy.emails import find_emails


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in find_emails(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@example.com", "ann@example.com"),
        ("Write to ann.lee@example.com.", "ann.lee@example.com"),
        ("(ann+news@mail.example.co.uk)", "ann+news@mail.example.co.uk"),
        ("mailto:ann_lee@example.org?subject=x", "ann_lee@example.org"),
        ("'ann@example.org'", "ann@example.org"),
        ("Ann <ann-lee@my-host.example>", "ann-lee@my-host.example"),
        ("o'neil@example.ie", "o'neil@example.ie"),
        ("josé@exämple.com", "josé@exämple.com"),
        ("写信给ann@example.com谢谢", "ann@example.com"),
        ("a1%b@sub.sub2.example.museum", "a1%b@sub.sub2.example.museum"),
        ("ann@example.xn--p1ai!", "ann@example.xn--p1ai"),
    ],
)
def test_addresses_are_found_without_their_surroundings(text: str, expected: str) -> None:
    assert found(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "@decorator",
        "@app.route('/x')",
        "a@b",
        "root@localhost",
        "W@x.T",
        "A@B.transpose(1, 0)",
        "icon@2x.png",
        "lodash@4.17.21",
        "@ann@mastodon.social",
        "git clone git@github.com:owner/name.git",
        "ann@@example.com",
        "ann@.com",
        "ann..lee@example.com",
        "ann@-example.com",
        "meet me @ noon.today",
    ],
)
def test_other_uses_of_the_sign_are_left_alone(text: str) -> None:
    assert found(text) == []


def test_every_address_of_a_list_is_found() -> None:
    assert found("a@x.com,b@y.org;c@z.net") == ["a@x.com", "b@y.org", "c@z.net"]
