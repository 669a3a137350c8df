"""Preference pairs."""

import json
from typing import Any

import pytest

from loralab.data.formats.preference import from_record, matches, to_record
from loralab.data.records import Message, PreferencePair
from loralab.errors import DataError

USER, GOOD, BAD = Message("user", "a"), Message("assistant", "b"), Message("assistant", "c")
PAIR = PreferencePair((USER,), (GOOD,), (BAD,))


def turns(*messages: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in messages]


def test_matches_two_answers_outside_sharegpt() -> None:
    assert matches({"prompt": "a", "chosen": "b", "rejected": "c"})
    assert matches({"chosen": [], "rejected": []})
    assert not matches({"prompt": "a", "chosen": "b"})
    assert not matches({"conversations": [], "chosen": {}, "rejected": {}})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": turns(("assistant", "b")), "rejected": "c"},
        {"prompt": "a", "chosen": turns(("assistant", "b"))[0], "rejected": turns(("assistant", "c"))[0]},
        {
            "prompt": turns(("user", "a")),
            "chosen": turns(("assistant", "b")),
            "rejected": turns(("assistant", "c")),
        },
        {
            "prompt": "a",
            "chosen": turns(("user", "a"), ("assistant", "b")),
            "rejected": turns(("user", "a"), ("assistant", "c")),
        },
        {
            "prompt": None,
            "chosen": turns(("user", "a"), ("assistant", "b")),
            "rejected": turns(("user", "a"), ("assistant", "c")),
        },
        {
            "chosen": json.dumps(turns(("user", "a"), ("assistant", "b"))),
            "rejected": json.dumps(turns(("user", "a"), ("assistant", "c"))),
        },
    ],
)
def test_every_way_to_write_a_pair_reads_the_same(row: dict[str, Any]) -> None:
    assert to_record(row) == PAIR


def test_strings_that_look_like_json_stay_text() -> None:
    row = {"prompt": "[1]", "chosen": '[{"role": "assistant"}]', "rejected": "{}"}
    record = to_record(row)
    assert [m.content for m in record.messages] == ["[1]", '[{"role": "assistant"}]']


def test_system_and_tools_belong_to_the_prompt() -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "system": "s", "tools": [{"name": "f"}]}
    expected = PreferencePair((Message("system", "s"), USER), (GOOD,), (BAD,), tools=({"name": "f"},))
    assert to_record(row) == expected
    assert from_record(expected) == row


def test_longest_shared_start_is_the_prompt() -> None:
    shared = [("user", "a"), ("assistant", "b"), ("user", "d")]
    record = to_record(
        {
            "chosen": turns(*shared, ("assistant", "x")),
            "rejected": turns(*shared, ("assistant", "y"), ("user", "e"), ("assistant", "z")),
        }
    )
    assert isinstance(record, PreferencePair)
    assert [m.content for m in record.prompt] == ["a", "b", "d"]
    assert [m.content for m in record.chosen] == ["x"]
    assert [m.content for m in record.rejected] == ["y", "e", "z"]


def test_shared_start_leaves_each_side_an_answer() -> None:
    record = to_record(
        {
            "chosen": turns(("user", "a"), ("assistant", "b")),
            "rejected": turns(("user", "a"), ("assistant", "b"), ("tool", "t"), ("assistant", "c")),
        }
    )
    assert isinstance(record, PreferencePair)
    assert (len(record.prompt), len(record.chosen), len(record.rejected)) == (1, 1, 3)
    equal = turns(("user", "a"), ("assistant", "b"))
    assert to_record({"chosen": equal, "rejected": equal}) == PreferencePair((USER,), (GOOD,), (GOOD,))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
            "'chosen' is text and there is no 'prompt' that it answers; a whole dialogue in one text cannot "
            "be cut into turns: give 'prompt', 'chosen' and 'rejected', or lists of turns",
        ),
        ({"chosen": [], "rejected": []}, "'chosen' has no assistant turn; an answer to the prompt is needed"),
        (
            {"chosen": turns(("assistant", "b")), "rejected": turns(("user", "a"))},
            "'rejected' has no assistant turn; an answer to the prompt is needed",
        ),
        (
            {
                "chosen": turns(("user", "a"), ("assistant", "b")),
                "rejected": turns(("user", "x"), ("assistant", "c")),
            },
            "'chosen' and 'rejected' share no first turn; both must start with the same prompt, "
            "or the row needs a 'prompt'",
        ),
        (
            {
                "chosen": turns(("system", "s"), ("user", "a"), ("assistant", "b")),
                "rejected": turns(("system", "s"), ("user", "x"), ("assistant", "c")),
            },
            "'chosen' starts with a turn of role 'user' that is not the prompt's; both must answer the same "
            "prompt",
        ),
        (
            {"prompt": "a", "chosen": turns(("user", "x"), ("assistant", "b")), "rejected": "c"},
            "'chosen' starts with a turn of role 'user' that is not the prompt's; both must answer the same "
            "prompt",
        ),
        ({"prompt": "a", "chosen": "b"}, "the field 'rejected' is missing."),
        (
            {"prompt": "a", "chosen": "b", "rejected": None},
            "the field 'rejected' holds null; a string or a list of turns is needed",
        ),
        (
            {"prompt": 1, "chosen": "b", "rejected": "c"},
            "the field 'prompt' holds a number; a string or a list of turns is needed",
        ),
        (
            {"chosen": 1, "rejected": 2},
            "the field 'chosen' holds a number; a list of turns is needed where there is no 'prompt'",
        ),
        ({"chosen": None, "rejected": []}, "the field 'chosen' holds null; a list of turns is needed"),
        (
            {"chosen": "[{", "rejected": "[{"},
            "the field 'chosen' holds broken JSON at column 3: "
            "Expecting property name enclosed in double quotes",
        ),
        (
            {"prompt": "a", "chosen": [{"role": "asistant", "content": "b"}], "rejected": "c"},
            "'chosen' turn 1: role='asistant' is unknown. Did you mean 'assistant'? "
            "Known: system, developer, user, assistant, tool, function",
        ),
    ],
)
def test_faulty_row_is_explained(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        to_record(row)
    assert str(error.value) == expected


def test_weights_are_written_as_turns() -> None:
    record = PreferencePair((USER,), (Message("assistant", "b", 0.5),), (BAD,))
    assert from_record(record) == {
        "prompt": turns(("user", "a")),
        "chosen": [{"role": "assistant", "content": "b", "weight": 0.5}],
        "rejected": turns(("assistant", "c")),
    }
