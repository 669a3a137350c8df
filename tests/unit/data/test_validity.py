"""What every record must satisfy."""

import pytest

from loralab.data.records import Conversation, Message, PreferencePair, ToolCall
from loralab.data.validity import find_fault, is_prompt_only


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ("system user assistant", ""),
        ("assistant user assistant", ""),
        ("user assistant tool assistant", ""),
        ("text", ""),
        ("", "the conversation is empty; at least one turn is needed"),
        ("user", ""),
        ("system user user", ""),
        ("user tool", "there is no assistant turn; add the answer"),
        ("user assistant tool", "the last turn is of role 'tool'; end the row with the assistant's answer"),
        ("user system assistant", "turn 2 is a system turn; only the first turn may be one"),
        ("text text", "turn 1 is a plain text among turns; a text stands alone"),
        (
            "user critic",
            "turn 2 has the unknown role 'critic'; known: system, user, assistant, tool, text",
        ),
    ],
)
def test_conversation_is_validated(turns: str, expected: str) -> None:
    assert find_fault(Conversation(tuple(Message(role, "a") for role in turns.split()))) == expected


def test_empty_text_counts_only_where_it_is_trained() -> None:
    assert find_fault(Conversation((Message("user", ""), Message("assistant", "a")))) == ""
    expected = "the assistant's text in turn 2 is empty; fill it in or remove the row"
    assert find_fault(Conversation((Message("user", "a"), Message("assistant", " \n")))) == expected


def test_turn_that_only_calls_a_tool_needs_no_text() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("now", {}),))
    assert find_fault(Conversation((Message("user", "a"), call))) == ""


def test_rejected_answer_of_a_pair_is_checked_too() -> None:
    prompt, good = (Message("user", "a"),), (Message("assistant", "b"),)
    assert find_fault(PreferencePair(prompt, good, (Message("assistant", "c"),))) == ""
    assert "is empty" in find_fault(PreferencePair(prompt, good, (Message("assistant", ""),)))


def test_user_turns_alone_are_a_prompt() -> None:
    assert is_prompt_only(Conversation((Message("system", "a"), Message("user", "b"), Message("user", "c"))))
    assert not is_prompt_only(Conversation((Message("user", "b"), Message("assistant", "c"))))
