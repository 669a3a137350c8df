"""Plain documents."""

import pytest

from loralab.data.formats.text import from_record, matches, to_record
from loralab.data.records import Conversation, Message
from loralab.errors import DataError


def test_text_becomes_one_message() -> None:
    assert matches({"text": "a", "meta": 1})
    assert not matches({"body": "a"})
    record = Conversation((Message("text", "a\n"),))
    assert to_record({"text": "a\n"}) == record
    assert from_record(record) == {"text": "a\n"}


def test_text_must_be_a_string() -> None:
    with pytest.raises(DataError, match="the field 'text' holds a list; a string is needed"):
        to_record({"text": ["a"]})
