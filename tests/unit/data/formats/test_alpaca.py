"""Alpaca records."""

from typing import Any

import pytest

from loralab.data.formats.alpaca import from_record, matches, to_record
from loralab.data.records import Conversation, Message
from loralab.errors import DataError


def read(row: dict[str, Any]) -> tuple[Message, ...]:
    return to_record(row).messages


def test_matches_needs_instruction_and_output() -> None:
    assert matches({"instruction": "a", "output": "b", "extra": 1})
    assert not matches({"instruction": "a", "input": "b"})


@pytest.mark.parametrize("extra", [{}, {"input": ""}, {"input": None, "system": "", "history": None}])
def test_instruction_alone_is_the_user_text(extra: dict[str, Any]) -> None:
    row = {"instruction": "Add.", "output": "3", **extra}
    assert read(row) == (Message("user", "Add."), Message("assistant", "3"))


def test_input_follows_after_an_empty_line() -> None:
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    assert read(row)[0] == Message("user", "Add.\n\n1 and 2")


def test_empty_instruction_leaves_no_gap_before_the_input() -> None:
    assert read({"instruction": "", "input": "1 + 2", "output": "3"})[0] == Message("user", "1 + 2")


def test_system_and_history_come_first() -> None:
    row = {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"], ["x", "y"]]}
    assert [(m.role, m.content) for m in read(row)] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "x"),
        ("assistant", "y"),
        ("user", "c"),
        ("assistant", "d"),
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "a", "outptu": "b"}, "the field 'output' is missing. Did you mean 'outptu'?"),
        ({"instruction": "a", "output": None}, "the field 'output' holds null; a string is needed"),
        ({"instruction": "a", "output": True}, "the field 'output' holds true or false; a string is needed"),
        (
            {"instruction": "a", "input": 3, "output": "b"},
            "the field 'input' holds a number; a string is needed",
        ),
        (
            {"instruction": "a", "output": "b", "history": "x"},
            "the field 'history' holds a string; a list of pairs is needed",
        ),
        (
            {"instruction": "a", "output": "b", "history": [["q", "a"], ["q"]]},
            "'history' entry 2 is no pair of strings [question, answer]",
        ),
    ],
)
def test_faulty_field_is_named(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        read(row)
    assert str(error.value) == expected


def test_history_may_be_json_text_in_a_cell() -> None:
    row = {"instruction": "c", "output": "d", "history": '[["a", "b"]]'}
    assert [m.content for m in read(row)] == ["a", "b", "c", "d"]


def test_earlier_turns_are_written_as_history() -> None:
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    conversation = Conversation(tuple(Message(*turn) for turn in turns))
    assert from_record(conversation) == {
        "instruction": "c",
        "input": "",
        "output": "d",
        "system": "s",
        "history": [["a", "b"]],
    }


def test_null_fields_and_a_prompt_with_two_answers_are_told_apart() -> None:
    row = {"instruction": "a", "output": "b", "chosen": "c", "rejected": "d"}
    assert matches(row)
    assert not matches({**row, "prompt": "p"})
