"""OpenAI chat rows."""

from typing import Any

import pytest

from loralab.data.formats.openai import from_record, matches, to_record
from loralab.data.records import Conversation, Message, ToolCall
from loralab.errors import DataError

ASK = {"role": "user", "content": "a"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
KNOWN = "Known: system, developer, user, assistant, tool, function"


def read(*turns: Any, **fields: Any) -> tuple[Message, ...]:
    return to_record({"messages": list(turns), **fields}).messages


def fault(*turns: Any, **fields: Any) -> str:
    with pytest.raises(DataError) as error:
        read(*turns, **fields)
    return str(error.value)


def test_matches_by_turn_shape() -> None:
    assert matches({"messages": [ASK]})
    assert matches({"messages": '[{"role": "user", "content": "a"}]'})
    assert matches({"messages": [ASK], "label": "sports"})
    assert not matches({"messages": [{"from": "human", "value": "a"}]})
    assert not matches({"messages": [ASK], "chosen": [], "rejected": []})
    assert not matches({"messages": [ASK], "label": True})
    assert not matches({"prompt": [ASK]})


def test_every_role_is_kept_in_order() -> None:
    roles = ["developer", "user", "assistant", "tool", "function", "assistant"]
    messages = read(*[{"role": role, "content": str(i)} for i, role in enumerate(roles)])
    assert [(m.role, m.content) for m in messages] == [
        ("system", "0"),
        ("user", "1"),
        ("assistant", "2"),
        ("tool", "3"),
        ("tool", "4"),
        ("assistant", "5"),
    ]


def test_row_of_a_table_holds_the_turns_as_json_text() -> None:
    row = {"messages": '[{"role": "user", "content": "a"}]', "tools": '[{"name": "f", "default": null}]'}
    assert to_record(row) == Conversation((Message("user", "a"),), tools=({"name": "f", "default": None},))


def test_typed_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": None, "value": "two"}]
    assert read({"role": "user", "content": parts}) == (Message("user", "one two"),)


def test_tool_calls_and_their_results_are_kept() -> None:
    asking = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "f"}
    assert read(ASK, asking, result) == (
        Message("user", "a"),
        Message("assistant", "", tool_calls=(ToolCall("f", {"x": 1}, "c1"),)),
        Message("tool", "2", name="f", tool_call_id="c1"),
    )


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"function": {"name": "f", "arguments": {"x": None, "y": {"z": None}}}}, ToolCall("f", {"y": {}})),
        ({"function": {"name": "f", "arguments": '{"x": null}'}}, ToolCall("f", {"x": None})),
        ({"function": {"name": "f", "arguments": "Paris"}}, ToolCall("f", "Paris")),
        ({"function": {"name": "f", "arguments": "[1]"}}, ToolCall("f", "[1]")),
        ({"function": {"name": "f", "arguments": '{"x": NaN}'}}, ToolCall("f", '{"x": NaN}')),
        ({"function": {"name": "f", "arguments": None}}, ToolCall("f", {})),
        ({"name": "f", "arguments": {"x": 1}, "function": None, "id": None}, ToolCall("f", {"x": 1})),
    ],
)
def test_arguments_may_be_an_object_or_text(call: dict[str, Any], expected: ToolCall) -> None:
    (message,) = read({"role": "assistant", "tool_calls": [call]})
    assert message.tool_calls == (expected,)


def test_older_function_call_becomes_a_tool_call() -> None:
    turn = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    assert read(turn) == (Message("assistant", "", tool_calls=(ToolCall("f", {}),)),)


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_kept_apart(field: str) -> None:
    assert read({"role": "assistant", "content": "b", field: "hm"}) == (
        Message("assistant", "b", reasoning="hm"),
    )


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        ({}, None),
        ({"weight": 0}, 0.0),
        ({"loss_weight": 0.5}, 0.5),
        ({"train": True}, 1.0),
        ({"train": False, "weight": 0.0}, 0.0),
        ({"train": None, "weight": None, "loss_weight": 2}, 2.0),
    ],
)
def test_weight_of_a_turn(given: dict[str, Any], weight: float | None) -> None:
    assert read({**ASK, **given}) == (Message("user", "a", weight),)


def test_null_parts_of_a_table_are_absent() -> None:
    nulls = dict.fromkeys(["tool_calls", "reasoning_content", "thinking", "name", "tool_call_id", "weight"])
    call = {"name": None, "arguments": None}
    row = {"system": None, "tools": None, "messages": [{**ASK, **nulls, "function_call": call}]}
    assert to_record(row) == Conversation((Message("user", "a"),))


def test_tools_lose_the_keys_that_a_table_filled_with_null() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"x": {"a": 1}, "y": None}}}]
    record = to_record({"messages": [ASK], "tools": tools})
    assert record.tools == ({"type": "function", "function": {"name": "f", "parameters": {"x": {"a": 1}}}},)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (
            {"role": "assistant", "content": None},
            "'content' is null; a string or a list of text parts is needed",
        ),
        (
            {"role": "asistant", "content": "b"},
            f"role='asistant' is unknown. Did you mean 'assistant'? {KNOWN}",
        ),
        ({"role": "text", "content": "b"}, f"role='text' is unknown. {KNOWN}"),
        ({"content": "b"}, "'role' is missing"),
        ({"role": 1, "content": "b"}, "'role' is no string"),
        ({"role": "user", "contnet": "b"}, "'content' is missing. Did you mean 'contnet'?"),
        ({"role": "user", "content": 3}, "'content' is a number; a string or a list of text parts is needed"),
        ("b", "a string where an object {role, content} is needed"),
        (None, "null where an object {role, content} is needed"),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
            "part 2 has type='image_url'; only type='text' is supported",
        ),
        ({"role": "user", "content": ["a"]}, "part 1 is a string; an object {type, text} is needed"),
        ({"role": "user", "content": [{"type": "text"}]}, "part 1 has no string in 'text' or 'value'"),
        ({**ASK, "weight": -1}, "weight=-1 is no weight; a finite number of 0 or more is needed"),
        (
            {**ASK, "loss_weight": float("nan")},
            "loss_weight=nan is no weight; a finite number of 0 or more is needed",
        ),
        ({**ASK, "weight": True}, "weight=True is no weight; a finite number of 0 or more is needed"),
        ({**ASK, "weight": "1"}, "weight='1' is no weight; a finite number of 0 or more is needed"),
        ({**ASK, "train": 1}, "train=1 is unknown; true or false is needed"),
        (
            {**ASK, "weight": 0.5, "train": True},
            "weight=0.5 and train=True contradict each other; keep one (train=true is weight 1, false is 0)",
        ),
        (
            {**ASK, "tool_calls": [CALL]},
            "a turn of role 'user' has tool calls; only one of role 'assistant' may",
        ),
        ({**ASK, "thinking": "hm"}, "a turn of role 'user' has reasoning; only one of role 'assistant' may"),
        (
            {**ASK, "tool_call_id": "1"},
            "a turn of role 'user' has 'tool_call_id'; only one of role 'tool' may",
        ),
        (
            {"role": "assistant", "content": "b", "thinking": "x", "reasoning": "y"},
            "'thinking' and 'reasoning' hold different texts; keep one",
        ),
        ({**ASK, "name": 3}, "'name' is a number; a string is needed"),
        (
            {"role": "assistant", "tool_calls": {"id": "1"}},
            "'tool_calls' is an object; a list of calls is needed",
        ),
        (
            {"role": "assistant", "tool_calls": ["f"]},
            "tool_calls: call 1 is a string; an object {name, arguments} is needed",
        ),
        (
            {"role": "assistant", "tool_calls": [CALL, {"type": "retrieval"}]},
            "tool_calls: call 2 has type='retrieval'; only type='function' is supported",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"nmae": "f"}}]},
            "tool_calls: call 1 has no 'name'. Did you mean 'nmae'?",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": "f"}]},
            "tool_calls: call 1 has a string as 'function'; {name, arguments} is needed",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": 1, "function": {"name": "f"}}]},
            "tool_calls: call 1 has a number as 'id'; a string is needed",
        ),
        (
            {"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]},
            "tool_calls: call 1 has a list as 'arguments'; an object or text is needed",
        ),
        (
            {"role": "assistant", "tool_calls": "[{]"},
            "the field 'tool_calls' holds broken JSON at column 3: "
            "Expecting property name enclosed in double quotes",
        ),
        (
            {"role": "assistant", "function_call": "f()"},
            "'function_call' is a string; an object {name, arguments} is needed",
        ),
        (
            {"role": "assistant", "tool_calls": [CALL], "function_call": {"name": "f"}},
            "has both 'tool_calls' and 'function_call'; keep 'tool_calls'",
        ),
    ],
)
def test_faulty_turn_is_explained(turn: Any, expected: str) -> None:
    assert fault(ASK, turn) == f"'messages' turn 2: {expected}"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tools": "f"}, "the field 'tools' holds a string; a list of function schemas is needed"),
        (
            {"tools": '{"name": "f"}'},
            "the field 'tools' holds an object; a list of function schemas is needed",
        ),
        ({"tools": [{}, "f"]}, "'tools' entry 2 is a string; a function schema is needed"),
        (
            {"messages": "[{'role': 'user'}]"},
            "the field 'messages' holds broken JSON at column 3: "
            "Expecting property name enclosed in double quotes",
        ),
        ({"messages": "hello"}, "the field 'messages' holds a string; a list of turns is needed"),
        ({"messages": None}, "the field 'messages' holds null; a list of turns is needed"),
        ({"system": ["s"]}, "the field 'system' holds a list; a string is needed"),
    ],
)
def test_faulty_field_is_explained(fields: dict[str, Any], expected: str) -> None:
    assert fault(ASK, **fields) == expected


def test_row_is_written_as_openai_does() -> None:
    record = Conversation(
        (
            Message("user", "a", name="Ann"),
            Message("assistant", "", 0.5, (ToolCall("f", {"é": None}, "c1"),), "hm"),
            Message("tool", "2", name="f", tool_call_id="c1"),
        ),
        tools=({"name": "f"},),
    )
    function = {"name": "f", "arguments": '{"é": null}'}
    call = {"id": "c1", "type": "function", "function": function}
    assert from_record(record) == {
        "messages": [
            {"role": "user", "content": "a", "name": "Ann"},
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": "hm",
                "tool_calls": [call],
                "weight": 0.5,
            },
            {"role": "tool", "content": "2", "name": "f", "tool_call_id": "c1"},
        ],
        "tools": [{"name": "f"}],
    }


def test_schema_with_a_null_is_written_as_text_to_survive() -> None:
    record = Conversation((Message("user", "a"),), tools=({"default": None},))
    assert from_record(record)["tools"] == '[{"default": null}]'
