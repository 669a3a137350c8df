"""ShareGPT rows."""

from typing import Any

import pytest

from loralab.data.formats.sharegpt import from_record, matches, to_record
from loralab.data.records import Conversation, Message, ToolCall
from loralab.errors import DataError


def turn(role: str, text: str) -> dict[str, str]:
    return {"from": role, "value": text}


def read(*turns: Any, **fields: Any) -> tuple[Message, ...]:
    return to_record({"conversations": list(turns), **fields}).messages


def fault(row: dict[str, object]) -> str:
    with pytest.raises(DataError) as error:
        to_record(row)
    return str(error.value)


def test_matches_by_turn_shape() -> None:
    assert matches({"conversations": [turn("human", "a")]})
    assert matches({"conversations": '[{"from": "human", "value": "a"}]'})
    assert not matches({"conversations": [{"role": "user", "content": "a"}]})
    assert not matches({"conversations": "a"})


def test_matches_leaves_preference_pairs_and_judged_answers_alone() -> None:
    assert not matches({"conversations": [turn("human", "a")], "chosen": turn("gpt", "b"), "rejected": {}})
    assert not matches({"conversations": [turn("human", "a")], "kto_tag": False})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("assistant", "assistant"),
        ("model", "assistant"),
        ("bot", "assistant"),
        ("chatgpt", "assistant"),
        ("chatbot", "assistant"),
        ("bing", "assistant"),
        ("bard", "assistant"),
        ("claude", "assistant"),
        ("system", "system"),
        ("tool", "tool"),
        ("observation", "tool"),
    ],
)
def test_roles_are_translated(theirs: str, ours: str) -> None:
    assert read(turn(theirs, "a")) == (Message(ours, "a"),)


def test_system_field_comes_first_and_greeting_is_kept() -> None:
    messages = read(turn("gpt", "Hello!"), turn("human", "Hi"), turn("gpt", "Yes?"), system="s")
    assert [(m.role, m.content) for m in messages] == [
        ("system", "s"),
        ("assistant", "Hello!"),
        ("user", "Hi"),
        ("assistant", "Yes?"),
    ]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"name": "f", "arguments": {"x": null}}', (ToolCall("f", {"x": None}),)),
        ('{"name": "f", "arguments": "{\\"x\\": 1}"}', (ToolCall("f", {"x": 1}),)),
        ('[{"name": "f"}, {"name": "g", "arguments": "y"}]', (ToolCall("f", {}), ToolCall("g", "y"))),
    ],
)
def test_call_turn_becomes_tool_calls_of_the_assistant(text: str, calls: tuple[ToolCall, ...]) -> None:
    assert read(turn("function_call", text)) == (Message("assistant", "", tool_calls=calls),)


def test_weight_and_tools_are_kept() -> None:
    row = {"conversations": [{**turn("gpt", "b"), "weight": 0}], "tools": '[{"name": "f"}]'}
    assert to_record(row) == Conversation((Message("assistant", "b", 0.0),), tools=({"name": "f"},))


def test_unknown_role_names_the_turn_and_a_close_role() -> None:
    message = fault({"conversations": [turn("human", "a"), turn("humann", "b")]})
    assert message.startswith(
        "'conversations' turn 2: from='humann' is unknown. Did you mean 'human'? Known: "
    )
    assert "chatgpt" in message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"from": "human", "vlaue": "a"}, "'value' is missing. Did you mean 'vlaue'?"),
        (
            turn("function_call", "f(x)"),
            "the call is no JSON text; {name, arguments} or a list of them is needed",
        ),
        (turn("function_call", "[]"), "the call is empty; {name, arguments} or a list of them is needed"),
        (turn("function_call", "3"), "call 1 is a number; an object {name, arguments} is needed"),
        (turn("function_call", '[{"name": "f"}, {}]'), "call 2 has no 'name'."),
        (
            {"from": "function_call", "value": None},
            "'value' is null; a string or a list of text parts is needed",
        ),
    ],
)
def test_faulty_turn_is_explained(given: Any, expected: str) -> None:
    message = fault({"conversations": [given]})
    assert message == f"'conversations' turn 1: {expected}"


def test_missing_list_is_named() -> None:
    assert fault({"conversation": []}) == "the field 'conversations' is missing. Did you mean 'conversation'?"
    assert fault({"conversations": "a"}) == (
        "the field 'conversations' holds a string; a list of turns is needed"
    )


def test_row_is_written_with_calls_as_turns_and_tools_as_text() -> None:
    record = Conversation(
        (
            Message("system", "s"),
            Message("user", "a"),
            Message("assistant", "", 1.0, (ToolCall("f", {"x": None}, "1"),)),
            Message("tool", "2", tool_call_id="1"),
            Message("assistant", "", tool_calls=(ToolCall("f", "é"), ToolCall("g", {}))),
        ),
        tools=({"name": "f"},),
    )
    calls = '[{"name": "f", "arguments": "é"}, {"name": "g", "arguments": {}}]'
    assert from_record(record) == {
        "conversations": [
            turn("system", "s"),
            turn("human", "a"),
            turn("function_call", '{"name": "f", "arguments": {"x": null}, "id": "1"}') | {"weight": 1.0},
            turn("observation", "2") | {"tool_call_id": "1"},
            turn("function_call", calls),
        ],
        "tools": '[{"name": "f"}]',
    }
