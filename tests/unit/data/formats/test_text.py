"""Plain documents."""

import pytest

from loralab.data.formats.text import matches, to_messages
from loralab.data.records import Message
from loralab.errors import DataError


def test_text_becomes_one_message() -> None:
    assert matches({"text": "a", "meta": 1})
    assert not matches({"body": "a"})
    assert to_messages({"text": "a\n"}) == (Message("text", "a\n"),)


def test_text_must_be_a_string() -> None:
    with pytest.raises(DataError, match="the field 'text' holds a list; a string is needed"):
        to_messages({"text": ["a"]})
