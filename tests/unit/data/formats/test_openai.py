"""OpenAI chat rows."""

from typing import Any

import pytest

from loralab.data.formats.openai import matches, to_messages
from loralab.data.records import Message
from loralab.errors import DataError

ASK = {"role": "user", "content": "a"}


def test_matches_by_turn_shape() -> None:
    assert matches({"messages": [ASK]})
    assert not matches({"messages": [{"from": "human", "value": "a"}]})
    assert not matches({"messages": [ASK], "chosen": [], "rejected": []})
    assert not matches({"prompt": [ASK]})


def test_every_role_is_kept_in_order() -> None:
    roles = ["system", "user", "assistant", "tool", "assistant"]
    row = {"messages": [{"role": role, "content": str(i)} for i, role in enumerate(roles)]}
    assert [(m.role, m.content) for m in to_messages(row)] == [
        ("system", "0"),
        ("user", "1"),
        ("assistant", "2"),
        ("tool", "3"),
        ("assistant", "4"),
    ]


def test_typed_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "value": "two"}]
    assert to_messages({"messages": [{"role": "user", "content": parts}]}) == (Message("user", "one two"),)


def test_usual_weights_and_empty_tool_fields_are_accepted() -> None:
    row = {
        "tools": [],
        "messages": [
            {**ASK, "loss_weight": 0.0},
            {"role": "assistant", "content": "b", "loss_weight": 1.0, "weight": 1, "tool_calls": None},
        ],
    }
    assert to_messages(row) == (Message("user", "a"), Message("assistant", "b"))


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (
            {"role": "assistant", "content": None},
            "'content' is null; a string or a list of text parts is needed",
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            "tool_calls: tool calls are not supported yet; remove the row or write the call as text",
        ),
        (
            {"role": "assistant", "content": "b", "reasoning_content": "hm"},
            "reasoning_content: reasoning text is not supported yet; write it into the content",
        ),
        (
            {"role": "asistant", "content": "b"},
            "role='asistant' is unknown. Did you mean 'assistant'? Known: system, user, assistant, tool",
        ),
        ({"role": "text", "content": "b"}, "role='text' is unknown. Known: system, user, assistant, tool"),
        ({"content": "b"}, "'role' is missing"),
        ({"role": 1, "content": "b"}, "'role' is no string"),
        ({"role": "user", "contnet": "b"}, "'content' is missing. Did you mean 'contnet'?"),
        ("b", "a string where an object {role, content} is needed"),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
            "part 2 has type='image_url'; only type='text' is supported",
        ),
        ({"role": "user", "content": ["a"]}, "part 1 is a string; an object {type, text} is needed"),
        ({"role": "user", "content": [{"type": "text"}]}, "part 1 has no string in 'text' or 'value'"),
        (
            {"role": "assistant", "content": "b", "loss_weight": 0.0},
            "loss_weight=0.0 on a turn of role 'assistant' is not supported yet; every assistant turn has "
            "weight 1 and every other turn 0",
        ),
        (
            {"role": "user", "content": "b", "weight": 1},
            "weight=1 on a turn of role 'user' is not supported yet; every assistant turn has weight 1 and "
            "every other turn 0",
        ),
    ],
)
def test_faulty_turn_is_explained(turn: Any, expected: str) -> None:
    with pytest.raises(DataError) as error:
        to_messages({"messages": [ASK, turn]})
    assert str(error.value) == f"'messages' turn 2: {expected}"


def test_offered_tools_are_refused() -> None:
    with pytest.raises(DataError, match="'tools': tool calls are not supported yet"):
        to_messages({"messages": [ASK], "tools": [{"type": "function"}]})
