"""Prompt and completion rows."""

from typing import Any

import pytest

from loralab.data.formats.prompt_completion import matches, to_messages
from loralab.data.records import Message
from loralab.errors import DataError

ASK = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}


def test_matches_needs_both_sides() -> None:
    assert matches({"prompt": "a", "completion": "b"})
    assert matches({"prompt": "a", "response": "b"})
    assert not matches({"prompt": "a", "chosen": "b", "rejected": "c"})


@pytest.mark.parametrize("answer", ["completion", "response"])
def test_strings_become_a_user_and_an_assistant_turn(answer: str) -> None:
    row = {"prompt": "a", answer: "b", "system": "s"}
    assert to_messages(row) == (Message("system", "s"), Message("user", "a"), Message("assistant", "b"))


def test_lists_of_turns_are_joined() -> None:
    row = {"prompt": [{"role": "system", "content": "s"}, ASK], "completion": [ANSWER]}
    assert to_messages(row) == (Message("system", "s"), Message("user", "a"), Message("assistant", "b"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a", "completion": None}, "the field 'completion' holds null; a string is needed"),
        (
            {"prompt": "a", "completion": [ANSWER]},
            "the field 'prompt' holds a string; a list of turns is needed",
        ),
        (
            {"prompt": "a", "completion": "b", "response": "c"},
            "has both 'completion' and 'response'; choose with data.columns.response=<field>",
        ),
        (
            {"prompt": [ASK, ANSWER, ASK], "completion": [ANSWER]},
            "'prompt' has an assistant turn, which would be trained; give the row as 'messages'",
        ),
        (
            {"prompt": [ASK], "completion": [ANSWER, ASK, ANSWER]},
            "'completion' has a turn that is not the assistant's; give the row as 'messages'",
        ),
    ],
)
def test_faulty_row_is_explained(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        to_messages(row)
    assert str(error.value) == expected
