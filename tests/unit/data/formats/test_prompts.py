"""Prompts without answers."""

from typing import Any

import pytest

from loralab.data.formats.prompts import from_record, matches, to_record
from loralab.data.records import Conversation, Message
from loralab.errors import DataError

ASK = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}


def test_matches_a_prompt_or_texts_without_an_answer() -> None:
    assert matches({"prompt": "a", "category": "x"})
    assert matches({"turns": ["a", "b"], "reference": ["c"]})
    assert not matches({"prompt": "a", "completion": "b"})
    assert not matches({"turns": [ASK]})
    assert not matches({"body": "a"})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a"}, [("user", "a")]),
        ({"prompt": "a", "system": "s"}, [("system", "s"), ("user", "a")]),
        ({"turns": ["a", "b"], "prompt": None}, [("user", "a"), ("user", "b")]),
        ({"turns": '["a", "b"]'}, [("user", "a"), ("user", "b")]),
        ({"prompt": ["a", "b"]}, [("user", "a"), ("user", "b")]),
        ({"prompt": [ASK, ANSWER, ASK]}, [("user", "a"), ("assistant", "b"), ("user", "a")]),
        ({"prompt": '["a"]'}, [("user", '["a"]')]),
    ],
)
def test_every_kind_of_prompt_is_read(row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert [(m.role, m.content) for m in to_record(row).messages] == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([Message("user", "a")], {"prompt": "a"}),
        ([Message("system", "s"), Message("user", "a")], {"prompt": "a", "system": "s"}),
        ([Message("user", "a"), Message("user", "b")], {"turns": ["a", "b"]}),
        (
            [Message("user", "a"), Message("assistant", "b"), Message("user", "a")],
            {"prompt": [ASK, ANSWER, ASK]},
        ),
    ],
)
def test_row_is_written_as_simply_as_it_can_be(messages: list[Message], expected: dict[str, Any]) -> None:
    assert from_record(Conversation(tuple(messages))) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"promt": "a"}, "the field 'prompt' is missing. Did you mean 'promt'?"),
        ({"prompt": 3}, "the field 'prompt' holds a number; a string or a list of turns is needed"),
        ({"prompt": [ASK, ANSWER]}, "'prompt' ends with an answer; give the row as 'messages'"),
        ({"prompt": ["a", 2]}, "'prompt' turn 2 is a number; a string is needed"),
        ({"turns": ["a", ASK]}, "'turns' turn 2 is an object; a string is needed"),
        ({"turns": "a"}, "the field 'turns' holds a string; a list of texts is needed"),
        ({"turns": '["a"'}, "the field 'turns' holds broken JSON at column 5: Expecting ',' delimiter"),
        ({"prompt": [{"role": "user"}]}, "'prompt' turn 1: 'content' is missing."),
    ],
)
def test_faulty_row_is_explained(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        to_record(row)
    assert str(error.value) == expected
