"""Question and answer rows."""

from typing import Any

import pytest

from loralab.data.formats.question_answer import from_record, matches, to_record
from loralab.data.records import Conversation, Message
from loralab.errors import DataError


def test_matches_needs_both_strings_and_no_pair() -> None:
    row = {"question": "q", "answer": "a"}
    assert matches({**row, "id": 1})
    assert not matches({"question": "q", "answers": ["a"]})
    assert not matches({**row, "chosen": "b", "rejected": "c"})


@pytest.mark.parametrize("context", [{}, {"context": None}, {"context": ""}])
def test_question_alone_is_the_user_text(context: dict[str, Any]) -> None:
    record = to_record({"question": "q", "answer": "a", **context})
    assert record == Conversation((Message("user", "q"), Message("assistant", "a")))


def test_context_comes_before_the_question() -> None:
    record = to_record({"question": "q", "answer": "a", "context": "c", "system": "s"})
    assert record.messages == (Message("system", "s"), Message("user", "c\n\nq"), Message("assistant", "a"))


def test_row_is_written_with_its_system() -> None:
    record = Conversation((Message("system", "s"), Message("user", "c\n\nq"), Message("assistant", "a")))
    assert from_record(record) == {"question": "c\n\nq", "answer": "a", "system": "s"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "q"}, "the field 'answer' is missing."),
        ({"question": "q", "answer": 4}, "the field 'answer' holds a number; a string is needed"),
        ({"question": None, "answer": "a"}, "the field 'question' holds null; a string is needed"),
        (
            {"question": "q", "answer": "a", "context": ["c"]},
            "the field 'context' holds a list; a string is needed",
        ),
    ],
)
def test_faulty_row_is_explained(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        to_record(row)
    assert str(error.value) == expected
