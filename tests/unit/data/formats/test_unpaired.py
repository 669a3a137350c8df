"""Judged answers."""

from typing import Any

import pytest

from loralab.data.formats.unpaired import from_record, matches, to_record
from loralab.data.records import LabelledConversation, Message
from loralab.errors import DataError

TURNS = (Message("user", "a"), Message("assistant", "b"))
STRINGS = {"prompt": "a", "completion": "b"}
OPENAI = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


def test_matches_an_answer_with_a_label() -> None:
    assert matches({**STRINGS, "label": False})
    assert matches({"conversations": SHAREGPT, "kto_tag": True})
    assert not matches({**STRINGS, "label": "sports"})
    assert not matches({"prompt": "a", "label": True})
    assert not matches({**STRINGS, "label": True, "chosen": "c", "rejected": "d"})


@pytest.mark.parametrize(
    "row",
    [
        STRINGS,
        {"prompt": "a", "response": "b"},
        {"prompt": OPENAI[:1], "completion": OPENAI[1:]},
        {"messages": OPENAI},
        {"messages": None, "conversations": SHAREGPT},
        {"messages": SHAREGPT},
    ],
)
def test_every_way_to_write_the_turns_reads_the_same(row: dict[str, Any]) -> None:
    assert to_record({**row, "label": True}) == LabelledConversation(TURNS, True)


@pytest.mark.parametrize(
    ("label", "expected"),
    [(True, True), (False, False), (1, True), (0, False), (0.0, False), ("True", True), ("0", False)],
)
def test_label_may_be_a_truth_value_or_a_number(label: object, expected: bool) -> None:
    record = to_record({**STRINGS, "label": None, "kto_tag": label})
    assert isinstance(record, LabelledConversation)
    assert record.label is expected


def test_row_is_written_with_strings_or_turns() -> None:
    assert from_record(LabelledConversation(TURNS, False)) == {**STRINGS, "label": False}
    longer = LabelledConversation((*TURNS, *TURNS), True)
    assert from_record(longer) == {"messages": [*OPENAI, *OPENAI], "label": True}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (STRINGS, "the field 'label' is missing."),
        ({**STRINGS, "label": None}, "the field 'label' holds null; true, false, 1 or 0 is needed"),
        ({**STRINGS, "label": 2}, "the field 'label' holds 2; true, false, 1 or 0 is needed"),
        ({**STRINGS, "label": "good"}, "the field 'label' holds 'good'; true, false, 1 or 0 is needed"),
        (
            {**STRINGS, "label": True, "kto_tag": 0},
            "'label' and 'kto_tag' contradict each other; keep one",
        ),
        ({"label": True}, "has neither a 'prompt' nor 'messages' nor 'conversations'"),
        ({"prompt": "a", "label": True}, "the field 'completion' is missing."),
        ({"messages": "a", "label": 1}, "the field 'messages' holds a string; a list of turns is needed"),
        (
            {**STRINGS, "response": "c", "label": 1},
            "has both 'completion' and 'response'; choose with data.columns.response=<field>",
        ),
    ],
)
def test_faulty_row_is_explained(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        to_record(row)
    assert str(error.value) == expected
