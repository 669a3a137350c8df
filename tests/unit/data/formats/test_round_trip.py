"""Writing a record in a form and reading it back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loralab.data.formats.registry import FORMATS
from loralab.data.records import (
    Conversation,
    LabelledConversation,
    Message,
    PreferencePair,
    Record,
    ToolCall,
)
from loralab.errors import DataError

Messages = tuple[Message, ...]
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(max_size=6) | st.sampled_from(["", "a", "a\n\nb", '{"x": 1}', "[1]", "[", "null"])
NAME = st.text(min_size=1, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=2)
TOOLS = st.just(()) | st.lists(OBJECT, max_size=2).map(tuple)
WEIGHT = st.none() | st.floats(min_value=0, max_value=2) | st.just(0.0)


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


CALL = st.builds(ToolCall, NAME, OBJECT | TEXT.filter(lambda text: not is_object(text)), st.just("") | NAME)
CALLS = st.just(()) | st.lists(CALL, min_size=1, max_size=2).map(tuple)


def turn(role: str) -> st.SearchStrategy[Message]:
    """A turn with everything that its role may have."""
    return st.builds(
        Message,
        st.just(role),
        TEXT,
        WEIGHT,
        CALLS if role == "assistant" else st.just(()),
        TEXT if role == "assistant" else st.just(""),
        TEXT,
        TEXT if role == "tool" else st.just(""),
    )


def plain(role: str) -> st.SearchStrategy[Message]:
    return st.builds(Message, st.just(role), TEXT)


ROLE = st.sampled_from(["system", "user", "assistant", "tool"])
TURN = ROLE.flatmap(turn)
PLAIN = ROLE.flatmap(plain)
ANY_TURN = (
    TURN | PLAIN | st.builds(Message, st.sampled_from(["text", "critic", "user"]), TEXT, WEIGHT, CALLS, TEXT)
)


def turns(each: st.SearchStrategy[Message], least: int = 0) -> st.SearchStrategy[Messages]:
    return st.lists(each, min_size=least, max_size=4).map(tuple)


def records(each: st.SearchStrategy[Message]) -> st.SearchStrategy[Record]:
    several = turns(each)
    return st.one_of(
        st.builds(Conversation, several, tools=TOOLS),
        st.builds(PreferencePair, several, several, several, tools=TOOLS),
        st.builds(LabelledConversation, several, st.booleans(), tools=TOOLS),
    )


ANY_RECORD = records(ANY_TURN) | records(PLAIN)


@st.composite
def pairs_of_turns(draw: Callable[..., Any], most: int = 3) -> Messages:
    """An optional system turn and then user and assistant in turn, text only."""
    system = (Message("system", draw(TEXT.filter(bool))),) if draw(st.booleans()) else ()
    count = draw(st.integers(1, most))
    return system + tuple(draw(plain(role)) for _ in range(count) for role in ("user", "assistant"))


def sharegpt_turn(role: str) -> st.SearchStrategy[Message]:
    """A turn without reasoning and without text beside calls."""

    def fit(message: Message) -> Message:
        calls = message.tool_calls
        content, name = ("", "") if calls else (message.content, message.name)
        return Message(message.role, content, message.weight, calls, "", name, message.tool_call_id)

    return turn(role).map(fit)


@st.composite
def trained_at_the_end(draw: Callable[..., Any]) -> Messages:
    """Turns of which the assistant's before the last request have a weight."""
    weighted = st.builds(Message, st.just("assistant"), TEXT, st.floats(min_value=0, max_value=2), CALLS)
    prompt = draw(turns(turn("system") | turn("user") | weighted | turn("tool")))
    last = draw(turns(turn("assistant") | turn("tool"), least=1))
    return (*prompt, draw(turn("user")), *last)


def pair(each: Callable[[str], st.SearchStrategy[Message]]) -> st.SearchStrategy[Record]:
    answer = st.tuples(each("assistant"), turns(ROLE.flatmap(each))).map(lambda parts: (parts[0], *parts[1]))
    prompt = turns(ROLE.flatmap(each))
    return st.builds(PreferencePair, prompt, answer, answer, tools=TOOLS).filter(
        lambda each: not each.prompt or each.chosen[: len(each.prompt)] != each.prompt
    )


def waits_for_an_answer(messages: Messages) -> bool:
    return not messages or messages[-1].role != "assistant"


def conversations(messages: st.SearchStrategy[Messages]) -> st.SearchStrategy[Record]:
    return st.builds(Conversation, messages, tools=TOOLS)


EXPRESSIBLE: dict[str, st.SearchStrategy[Record]] = {
    "alpaca": conversations(pairs_of_turns()),
    "sharegpt": conversations(turns(ROLE.flatmap(sharegpt_turn))),
    "openai": conversations(turns(TURN)),
    "prompt_completion": conversations(pairs_of_turns(most=1) | trained_at_the_end()),
    "question_answer": conversations(pairs_of_turns(most=1)),
    "prompts": conversations(turns(TURN).filter(waits_for_an_answer) | turns(plain("user"))),
    "text": st.builds(lambda text: Conversation((Message("text", text),)), TEXT),
    "preference": pair(turn) | pair(plain),
    "sharegpt_preference": pair(sharegpt_turn),
    "unpaired": st.builds(
        LabelledConversation, turns(TURN) | pairs_of_turns(most=1), st.booleans(), tools=TOOLS
    ),
}


@pytest.mark.parametrize("name", FORMATS)
@quick
@given(data=st.data())
def test_what_a_form_can_hold_comes_back_the_same(name: str, data: st.DataObject) -> None:
    record = data.draw(EXPRESSIBLE[name])
    fields = FORMATS[name].from_record(record)
    assert FORMATS[name].matches(fields)
    assert FORMATS[name].to_record(fields) == record
    assert FORMATS[name].to_record(json.loads(json.dumps(fields))) == record


@pytest.mark.parametrize("name", FORMATS)
@quick
@given(record=ANY_RECORD)
def test_any_record_comes_back_the_same_or_is_refused_with_the_form(name: str, record: Record) -> None:
    try:
        fields = FORMATS[name].from_record(record)
    except DataError as error:
        assert f"data.format={name!r} cannot hold " in str(error) or "call" in str(error)
    else:
        assert FORMATS[name].to_record(fields) == record


FIELDS = [
    "instruction", "input", "output", "history", "system", "tools", "conversations", "messages", "prompt",
    "completion", "response", "question", "answer", "context", "turns", "text", "chosen", "rejected", "label",
    "kto_tag",
]  # fmt: skip
TURN_FIELDS = [
    "role", "content", "from", "value", "weight", "loss_weight", "train", "tool_calls", "function_call",
    "name", "tool_call_id", "reasoning_content", "thinking", "type", "text", "function", "arguments", "id",
]  # fmt: skip
WORD = st.sampled_from(["user", "assistant", "human", "gpt", "function_call", "text", "function", "[", "{}"])
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | WORD | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TURN_FIELDS), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", FORMATS)
@quick
@given(fields=st.dictionaries(st.sampled_from(FIELDS), ANY_VALUE, max_size=6))
def test_any_row_becomes_a_record_or_is_refused_in_words(name: str, fields: dict[str, Any]) -> None:
    form = FORMATS[name]
    assert form.matches(fields) in (True, False)
    try:
        record = form.to_record(fields)
    except DataError as error:
        assert str(error)
    else:
        assert all(isinstance(message.content, str) for message in record.messages)


CHAT = (Message("user", "a"), Message("assistant", "b"))


def test_rows_of_an_arrow_table_read_the_same() -> None:
    arrow = pytest.importorskip("pyarrow")
    call = ToolCall("f", {"x": None}, "c1")
    written = [
        Conversation(CHAT, tools=({"name": "f"},)),
        Conversation((CHAT[0], Message("assistant", "", 0.5, (call,), "hm"))),
        Conversation((*CHAT, Message("tool", "t", name="f", tool_call_id="c1"))),
    ]
    form = FORMATS["openai"]
    rows = arrow.Table.from_pylist([form.from_record(record) for record in written]).to_pylist()
    assert rows[0]["messages"][0]["tool_calls"] is None
    assert rows[1]["tools"] is None
    assert [form.to_record(row) for row in rows] == written
