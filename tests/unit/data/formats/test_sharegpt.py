"""ShareGPT rows."""

import pytest

from loralab.data.formats.sharegpt import matches, to_messages
from loralab.data.records import Message
from loralab.errors import DataError


def turn(role: str, text: str) -> dict[str, str]:
    return {"from": role, "value": text}


def test_matches_by_turn_shape() -> None:
    assert matches({"conversations": [turn("human", "a")]})
    assert not matches({"conversations": [{"role": "user", "content": "a"}]})
    assert not matches({"conversations": "a"})


def test_matches_leaves_preference_pairs_alone() -> None:
    assert not matches({"conversations": [turn("human", "a")], "chosen": turn("gpt", "b"), "rejected": {}})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("assistant", "assistant"),
        ("model", "assistant"),
        ("chatgpt", "assistant"),
        ("system", "system"),
        ("tool", "tool"),
        ("observation", "tool"),
    ],
)
def test_roles_are_translated(theirs: str, ours: str) -> None:
    assert to_messages({"conversations": [turn(theirs, "a")]}) == (Message(ours, "a"),)


def test_system_field_comes_first_and_greeting_is_kept() -> None:
    row = {"system": "s", "conversations": [turn("gpt", "Hello!"), turn("human", "Hi"), turn("gpt", "Yes?")]}
    assert [(m.role, m.content) for m in to_messages(row)] == [
        ("system", "s"),
        ("assistant", "Hello!"),
        ("user", "Hi"),
        ("assistant", "Yes?"),
    ]


def fault(row: dict[str, object]) -> str:
    with pytest.raises(DataError) as error:
        to_messages(row)
    return str(error.value)


def test_unknown_role_names_the_turn_and_a_close_role() -> None:
    message = fault({"conversations": [turn("human", "a"), turn("humann", "b")]})
    assert message.startswith(
        "'conversations' turn 2: from='humann' is unknown. Did you mean 'human'? Known: "
    )
    assert "chatgpt" in message


def test_tool_calls_are_refused() -> None:
    expected = "tool calls are not supported yet"
    assert expected in fault({"conversations": [turn("human", "a"), turn("function_call", "{}")]})
    assert expected in fault({"conversations": [turn("human", "a"), turn("gpt", "b")], "tools": "[{}]"})


def test_missing_value_is_named() -> None:
    message = fault({"conversations": [{"from": "human", "vlaue": "a"}]})
    assert message == "'conversations' turn 1: 'value' is missing. Did you mean 'vlaue'?"


def test_missing_list_is_named() -> None:
    assert fault({"conversation": []}) == "the field 'conversations' is missing. Did you mean 'conversation'?"
    assert fault({"conversations": "a"}) == (
        "the field 'conversations' holds a string; a list of turns is needed"
    )
