"""What a form cannot hold is refused when a record is written."""

import pytest

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

CHAT = (Message("user", "a"), Message("assistant", "b"))
CALLING = Message("assistant", "", tool_calls=(ToolCall("f", {}),))


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("alpaca", Conversation((CHAT[0], CALLING)), "'tool_calls' (turn 2); use openai"),
        ("alpaca", Conversation((Message("tool", "t"), *CHAT)), "a tool turn (turn 1); use openai"),
        ("alpaca", Conversation((CHAT[0], Message("assistant", "b", 0.0))), "'weight' (turn 2); use openai"),
        (
            "alpaca",
            Conversation((*CHAT, CHAT[0])),
            "turns other than user and assistant in turn (user, assistant, user); use openai",
        ),
        ("alpaca", Conversation((Message("text", "x"),)), "a plain text; use text"),
        ("alpaca", LabelledConversation(CHAT, True), "a labelled answer; use unpaired"),
        (
            "openai",
            PreferencePair(CHAT[:1], CHAT[1:], CHAT[1:]),
            "a preference pair; use preference or sharegpt_preference",
        ),
        ("openai", Conversation((Message("critic", "x"),)), "a turn of role 'critic' (turn 1)"),
        ("openai", Conversation((Message("user", "x", -1.0),)), "weight=-1.0 (turn 1)"),
        (
            "openai",
            Conversation((Message("user", "x", reasoning="hm"),)),
            "'reasoning' on a turn of role 'user' (turn 1)",
        ),
        (
            "sharegpt",
            Conversation((Message("assistant", "b", reasoning="hm"),)),
            "'reasoning' (turn 1); use openai",
        ),
        (
            "sharegpt",
            Conversation((Message("assistant", "b", tool_calls=(ToolCall("f", {}),)),)),
            "'content' beside tool calls (turn 1); use openai",
        ),
        (
            "prompt_completion",
            Conversation((*CHAT, *CHAT)),
            "an assistant turn before the last request (turn 2), which would not be trained; use openai",
        ),
        (
            "prompt_completion",
            Conversation(CHAT[:1]),
            "turns without an answer at the end; use prompts or openai",
        ),
        (
            "question_answer",
            Conversation((*CHAT, *CHAT)),
            "turns other than a question and its answer (user, assistant, user, assistant); use openai",
        ),
        ("prompts", Conversation(CHAT), "an answer; use openai or prompt_completion"),
        ("text", Conversation(CHAT), "turns; use openai or sharegpt"),
        (
            "text",
            Conversation((Message("text", "x", 0.5),)),
            "more than one text without weight or tools",
        ),
        ("preference", Conversation(CHAT), "a conversation; use openai or sharegpt"),
        (
            "preference",
            PreferencePair(CHAT[:1], CHAT[:1], CHAT[1:]),
            "this pair: 'chosen' has no assistant turn; an answer to the prompt is needed",
        ),
        (
            "preference",
            PreferencePair(CHAT[1:], CHAT[1:], CHAT[1:] * 2),
            "answers that repeat the prompt, which would be cut off",
        ),
        ("unpaired", Conversation(CHAT), "a conversation; use openai or sharegpt"),
    ],
)
def test_refusal_says_what_the_form_has_no_place_for(name: str, record: Record, expected: str) -> None:
    with pytest.raises(DataError) as error:
        FORMATS[name].from_record(record)
    assert str(error.value) == f"data.format={name!r} cannot hold {expected}"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (ToolCall("f", '{"x": 1}'), "the call of 'f' has text arguments that would be read as an object"),
        (ToolCall("", {}), "a tool call without a name cannot be written"),
        (
            ToolCall("f", {"x": float("inf")}),
            "cannot be written as JSON: Out of range float values are not JSON compliant",
        ),
        (ToolCall("f", {"x": {1}}), "cannot be written as JSON: Object of type set is not JSON serializable"),
    ],
)
@pytest.mark.parametrize("name", ["openai", "sharegpt"])
def test_call_that_would_change_is_refused(name: str, call: ToolCall, expected: str) -> None:
    with pytest.raises(DataError) as error:
        FORMATS[name].from_record(Conversation((Message("assistant", "", tool_calls=(call,)),)))
    assert expected in str(error.value)
