"""Records as JSON text."""

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralab.data.records import (
    Conversation,
    LabelledConversation,
    Message,
    PreferencePair,
    Record,
    ToolCall,
)
from loralab.data.serialization import record_from_json, record_to_json
from loralab.errors import DataError

# Adjacent halves of a surrogate pair are one character to JSON; no reader gives such a string.
TEXT = st.text(max_size=6) | st.sampled_from(["", "\ud83d", "a\udc80", "\u2028\n", '"\\'])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=2)
CALLS = st.lists(st.builds(ToolCall, TEXT, OBJECT | TEXT, TEXT), max_size=2).map(tuple)
MESSAGE = st.builds(
    Message, TEXT, TEXT, st.none() | st.floats(allow_nan=False), CALLS, reasoning=TEXT, name=TEXT,
    tool_call_id=TEXT,
)  # fmt: skip
MESSAGES = st.lists(MESSAGE, max_size=3).map(tuple)
COMMON = {
    "source": st.just("rows.jsonl"),
    "row": st.just(7),
    "tools": st.lists(OBJECT, max_size=2).map(tuple),
    "unit": st.sampled_from(["line", "row"]),
}
RECORD = st.one_of(
    st.builds(Conversation, MESSAGES, **COMMON),
    st.builds(PreferencePair, MESSAGES, MESSAGES, MESSAGES, **COMMON),
    st.builds(LabelledConversation, MESSAGES, st.booleans(), **COMMON),
)


@settings(max_examples=150, deadline=None)
@given(RECORD)
def test_every_record_comes_back_the_same(record: Record) -> None:
    text = record_to_json(record)
    back = record_from_json(text, "rows.jsonl", 7)
    assert back == record
    assert type(back) is type(record)
    assert "\n" not in text
    assert record_from_json(text.encode().decode(), "rows.jsonl", 7) == record


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            Conversation((Message("user", "é"), Message("assistant", "b")), "rows.jsonl", 7),
            '{"messages":[{"role":"user","content":"é"},{"role":"assistant","content":"b"}]}',
        ),
        (
            PreferencePair((), (Message("assistant", "a", 0.0),), (Message("assistant", "b"),)),
            '{"prompt":[],"chosen":[{"role":"assistant","content":"a","weight":0.0}],'
            '"rejected":[{"role":"assistant","content":"b"}]}',
        ),
        (
            Conversation((Message("text", "a"),), "rows.parquet", 7, unit="row"),
            '{"messages":[{"role":"text","content":"a"}],"unit":"row"}',
        ),
        (
            LabelledConversation(
                (
                    Message("assistant", "", tool_calls=(ToolCall("f", {"x": 1}, "1"), ToolCall("g", "y"))),
                    Message("tool", "t", name="f", tool_call_id="1"),
                    Message("assistant", "u", reasoning="hm"),
                ),
                False,
                tools=({"name": "f"},),
            ),
            '{"messages":[{"role":"assistant","content":"","tool_calls":[{"name":"f","arguments":{"x":1},'
            '"id":"1"},{"name":"g","arguments":"y"}]},{"role":"tool","content":"t","name":"f",'
            '"tool_call_id":"1"},{"role":"assistant","content":"u","reasoning":"hm"}],"label":false,'
            '"tools":[{"name":"f"}]}',
        ),
    ],
)
def test_absent_parts_take_no_room(record: Record, expected: str) -> None:
    assert record_to_json(record) == expected


def test_half_a_surrogate_pair_is_escaped() -> None:
    text = record_to_json(Conversation((Message("user", "\ud83dé"),)))
    assert text == '{"messages":[{"role":"user","content":"\\ud83d\\u00e9"}]}'


def test_any_mapping_is_written_as_an_object() -> None:
    record = Conversation((), tools=(MappingProxyType({"name": "f"}),))
    assert record_from_json(record_to_json(record), "", 0) == Conversation((), tools=({"name": "f"},))


def test_value_without_a_json_form_is_refused() -> None:
    call = ToolCall("f", {"x": {1, 2}})
    with pytest.raises(DataError, match="cannot be kept as JSON: set is no JSON value"):
        record_to_json(Conversation((Message("assistant", "", tool_calls=(call,)),)))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"messages":[{}]}', '{"messages":[{"from":"a"}]}']
)
def test_text_that_is_no_record_names_its_place(text: Any) -> None:
    with pytest.raises(DataError, match=r"^rows\.jsonl row 7: no kept record: "):
        record_from_json(text, "rows.jsonl", 7)
