"""Which turns are chosen, and where a turn lies in a longer text."""

from typing import Any

import pytest

from loralab.data.records import Message, ToolCall
from loralab.data.spans import check_supervise, turn_in_place, turn_weights
from loralab.errors import ConfigError, DataError

USER, ANSWER = Message("user", "a"), Message("assistant", "b")
THREE = (USER, ANSWER, USER, ANSWER, USER, ANSWER)


@pytest.mark.parametrize(
    ("supervise", "expected"),
    [
        ("assistant", {1: 1.0, 3: 1.0, 5: 1.0}),
        ("last", {5: 1.0}),
        ([2], {3: 1.0}),
        ([1, -1], {1: 1.0, 5: 1.0}),
        ([-3, 1, 7, -7], {1: 1.0}),
        ("all", {}),
    ],
)
def test_turns_are_counted_among_the_assistant_s(supervise: Any, expected: dict[int, float]) -> None:
    assert turn_weights(THREE, supervise) == expected


def test_last_is_the_last_assistant_turn_where_a_user_turn_follows() -> None:
    assert turn_weights(THREE[:5], "last") == {3: 1.0}


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_weight_must_be_a_number_of_zero_or_more(weight: float) -> None:
    with pytest.raises(DataError, match=r"turn 2 \(assistant\) has the weight .*: a weight is a number of 0"):
        turn_weights((USER, Message("assistant", "b", weight)), "assistant")


def test_zero_weight_on_any_turn_is_allowed() -> None:
    assert turn_weights((Message("user", "a", 0), Message("assistant", "b", 0)), "assistant") == {}


@pytest.mark.parametrize("supervise", ["assistant", "last", "all"])
def test_words_are_kept(supervise: str) -> None:
    assert check_supervise(supervise) == supervise


def test_list_of_turns_is_kept() -> None:
    assert check_supervise([1, -1]) == (1, -1)


USE = "is unknown: use assistant, last, all, or a list of assistant turns such as [1,-1]."


@pytest.mark.parametrize(
    ("supervise", "message"),
    [
        ("asistant", f"data.supervise='asistant' {USE} Did you mean 'assistant'?"),
        ([0], "data.supervise=[0]: assistant turns are counted from 1, from the end with -1."),
        ([True], f"data.supervise=[True] {USE}"),
        (["1"], f"data.supervise=['1'] {USE}"),
        (None, f"data.supervise=None {USE}"),
        ([], f"data.supervise=[] {USE}"),
    ],
)
def test_other_values_are_refused(supervise: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_supervise(supervise)
    assert str(error.value) == message


def place(message: Message, alone: str, text: str) -> str:
    end = alone.find("<E>")
    return turn_in_place(message, 1, alone, (end, end + 3) if end >= 0 else None, text)


def test_turn_that_stands_unchanged() -> None:
    assert place(Message("assistant", "yes"), "yes<E>\n", "yes<E>\nuser: b") == "yes<E>"


def test_turn_whose_beginning_is_dropped_later() -> None:
    assert place(Message("assistant", "yes"), "<t></t>yes<E>", "yes<E>user: yes<E>") == "yes<E>"


def test_content_that_is_not_in_place_is_never_searched_further_on() -> None:
    with pytest.raises(DataError, match="changes the text of turn 2"):
        place(Message("assistant", "yes"), "<t></t>yes<E>", "no<E>user: <t></t>yes<E>")


def test_turn_that_loses_the_front_of_its_content_is_refused() -> None:
    with pytest.raises(DataError, match="changes the text of turn 2"):
        place(Message("assistant", "<t>h</t>yes"), "<t>h</t>yes<E>", "yes<E>user: b")


def test_turn_that_loses_its_first_call_is_refused() -> None:
    calls = (ToolCall("add", {}), ToolCall("neg", {}))
    with pytest.raises(DataError, match="changes the text of turn 2"):
        place(Message("assistant", "", tool_calls=calls), "(add)(neg)<E>", "(neg)<E>")


def test_call_whose_name_is_missing_is_refused() -> None:
    with pytest.raises(DataError, match="leaves out the tool calls of turn 2"):
        place(Message("assistant", "", tool_calls=(ToolCall("add", {}),)), "<E>", "<E>")


def test_empty_turn_is_its_end_token() -> None:
    assert place(Message("assistant", ""), "<t></t><E>", "<E>user") == "<E>"


def test_white_space_of_the_template_s_own_is_no_change() -> None:
    message = Message("assistant", "<t>h</t>yes")
    assert place(message, "<t>\nh\n</t>\n\nyes<E>", "<t>\nh\n</t>\n\nyes<E>") == "<t>\nh\n</t>\n\nyes<E>"


def test_turn_without_an_end_token_is_refused() -> None:
    with pytest.raises(DataError, match="does not end turn 2 with a special token"):
        place(Message("assistant", "yes"), "yes END", "yes END")
