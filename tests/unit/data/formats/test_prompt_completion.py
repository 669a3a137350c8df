"""Prompt and completion rows."""

from typing import Any

import pytest

from loralab.data.formats.prompt_completion import from_record, matches, to_record
from loralab.data.records import Conversation, Message
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
    assert to_record(row).messages == (
        Message("system", "s"),
        Message("user", "a"),
        Message("assistant", "b"),
    )


def test_lists_of_turns_are_joined() -> None:
    row = {"prompt": [{"role": "system", "content": "s"}, ASK], "completion": [ANSWER]}
    assert to_record(row).messages == (
        Message("system", "s"),
        Message("user", "a"),
        Message("assistant", "b"),
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"prompt": "a", "completion": None},
            "the field 'completion' holds null; a string or a list of turns is needed",
        ),
        (
            {"prompt": 7, "completion": "b"},
            "the field 'prompt' holds a number; a string or a list of turns is needed",
        ),
        (
            {"prompt": 7, "completion": [ANSWER]},
            "the field 'prompt' holds a number; a list of turns is needed, as in 'completion'",
        ),
        (
            {"prompt": "a", "completion": [ANSWER]},
            "the field 'prompt' holds a string; a list of turns is needed",
        ),
        (
            {"prompt": "a", "completion": "b", "response": "c"},
            "has both 'completion' and 'response'; choose with data.columns.response=<field>",
        ),
        ({"prompt": "a", "compltion": "b"}, "the field 'completion' is missing. Did you mean 'compltion'?"),
        (
            {"prompt": None, "response": "b"},
            "the field 'prompt' holds null; a string or a list of turns is needed",
        ),
        (
            {"prompt": [ASK], "completion": [ANSWER, ASK, ANSWER]},
            "'completion' has a turn that is not the assistant's; give the row as 'messages'",
        ),
    ],
)
def test_faulty_row_is_explained(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        to_record(row)
    assert str(error.value) == expected


def test_judged_and_paired_answers_are_left_to_their_forms() -> None:
    row = {"prompt": "a", "completion": "b"}
    assert not matches({**row, "label": True})
    assert not matches({**row, "chosen": "c", "rejected": "d"})
    assert matches({**row, "label": "sports"})


def test_assistant_turns_of_the_prompt_are_not_trained() -> None:
    row = {"prompt": [ASK, ANSWER, {**ANSWER, "weight": 0.5}, ASK], "completion": [ANSWER]}
    assert [m.weight for m in to_record(row).messages] == [None, 0.0, 0.5, None, None]


def test_null_answer_beside_a_given_one_is_absent() -> None:
    row = {"prompt": "a", "completion": None, "response": "b"}
    assert to_record(row).messages == (Message("user", "a"), Message("assistant", "b"))


def test_strings_that_look_like_json_stay_text() -> None:
    row = {"prompt": '[{"role": "user", "content": "a"}]', "completion": '{"a": 1}'}
    assert [m.content for m in to_record(row).messages] == [row["prompt"], row["completion"]]


def test_turns_are_written_where_strings_do_not_suffice() -> None:
    call_free = (Message("user", "a"), Message("assistant", "b", 0.0), Message("user", "c"))
    record = Conversation((*call_free, Message("assistant", "d")))
    assert from_record(record) == {
        "prompt": [ASK, {**ANSWER, "weight": 0.0}, {"role": "user", "content": "c"}],
        "completion": [{"role": "assistant", "content": "d"}],
    }
