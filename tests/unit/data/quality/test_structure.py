"""Order of turns, code fences and JSON."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.quality.structure import find_fence_fault, find_json_fault, find_order_fault
from loralab.data.records import Message, ToolCall

NAMES = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "x": "text"}


def turns(letters: str) -> list[Message]:
    """One turn for each letter; `c` is an assistant turn with a tool call."""
    return [
        Message("assistant", "", tool_calls=(ToolCall("f", {}),))
        if letter == "c"
        else Message(NAMES[letter], "x")
        for letter in letters
    ]


@pytest.mark.parametrize(
    "letters",
    [
        "ua",
        "sua",
        "uaua",
        "aua",
        "saua",
        "u",
        "uu",
        "x",
        "uc",
        "ucta",
        "ucttaua",
        "uctcta",
        "ucu",
        "uata",
        "uau",
    ],
)
def test_conversations_in_order_pass(letters: str) -> None:
    assert find_order_fault(turns(letters)) == ""


@pytest.mark.parametrize(
    ("letters", "fault"),
    [
        ("uua", "turn 2 (user) follows turn 1 (user)"),
        ("uaa", "turn 3 (assistant) follows turn 2 (assistant)"),
        ("usa", "turn 2 (system) follows turn 1 (user)"),
        ("suau" + "u", "turn 5 (user) follows turn 4 (user)"),
        ("uta", "turn 2 (tool) follows turn 1 (user)"),
        ("tua", "turn 1 (tool) opens the conversation"),
        ("ucata", "turn 3 (assistant) follows turn 2 (assistant)"),
        ("uctaut", "turn 6 (tool) follows turn 5 (user)"),
        ("uctata", "turn 5 (tool) follows turn 4 (assistant)"),
        ("uctua", "turn 4 (user) follows turn 3 (tool)"),
        ("a", "there is no user turn"),
        ("sa", "there is no user turn"),
        ("", "there is no user turn"),
        ("ux", "turn 2 (text) follows turn 1 (user)"),
    ],
)
def test_turns_out_of_order_are_named(letters: str, fault: str) -> None:
    assert find_order_fault(turns(letters)) == fault


@pytest.mark.parametrize(
    "text",
    [
        "no code",
        "```\na\n```",
        "```py\na\n````  ",
        "~~~\n```\n~~~",
        "````\n```\n````",
        "   ```\na\n ```",
        "1. a\n\n    ```py\n    b\n    ```\n\n2. c",
        "- ```\n  a\n  ```",
        "> ```\n> a\n> ```\nb",
        "a ``` b",
        "```a`b",
        "    ```\n    indented code",
        "```\r\na\r\n```\r\n",
        '```json\n{"a": [1, null]}\n```',
        "```JSON title=x\n1\n```",
        "```jsonc\n{a}\n```",
        "```\n```",
        "<!--\n```\n-->",
    ],
)
def test_closed_fences_pass(text: str) -> None:
    assert find_fence_fault(text) == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```\na", "the code fence '```' in line 1 is not closed"),
        ("a\n\n```py\nb\n```\n~~~~\nc\n~~~", "the code fence '~~~~' in line 6 is not closed"),
        ("```\na\n~~~", "the code fence '```' in line 1 is not closed"),
        ("```\na\n    ```", "the code fence '```' in line 1 is not closed"),
        ("```\na\n``` b", "the code fence '```' in line 1 is not closed"),
        ("> ```\n> a\n\nb", "the code fence '```' in line 1 is not closed"),
        ("- ```\n  a\n\nb", "the code fence '```' in line 1 is not closed"),
        ("> ```\n>", "the code fence '```' in line 1 is not closed"),
        ("```", "the code fence '```' in line 1 is not closed"),
        ("```\na\n\n", "the code fence '```' in line 1 is not closed"),
    ],
)
def test_unclosed_fences_are_named(text: str, fault: str) -> None:
    assert find_fence_fault(text) == fault


def test_a_fence_of_json_must_parse() -> None:
    fault = find_fence_fault("a\n```json\n{'a': 1}\n```")
    assert fault.startswith("the code fence in line 2 is declared as JSON: Expecting property name")
    assert find_fence_fault("```json\n```") != ""


@pytest.mark.parametrize("text", ["{}", ' [1, "a"]\n', "null", "1e3", '"\\ud800"'])
def test_json_passes(text: str) -> None:
    assert find_json_fault(text) == ""


@pytest.mark.parametrize(
    "text", ["", "{", "{} {}", "NaN", "[Infinity]", "{'a': 1}", "[" * 100_000, "9" * 5000]
)
def test_other_text_is_no_json(text: str) -> None:
    assert find_json_fault(text) != ""


def test_the_place_of_a_json_fault_is_named() -> None:
    assert find_json_fault('{"a": 1,\n}').endswith("at line 2 column 1")


@given(st.text(alphabet=st.sampled_from("`~ \n>-1.a\t\r\x00\ud800"), max_size=60))
def test_any_text_has_a_verdict(text: str) -> None:
    fenced = "`" in text or "~" in text
    assert find_fence_fault(text) == "" or fenced
    assert isinstance(find_json_fault(text), str)


@given(st.text(alphabet=st.sampled_from("`~ \n>-a"), max_size=40), st.sampled_from(["```", "~~~~"]))
def test_a_closed_fence_at_the_end_of_any_closed_text_is_closed(text: str, fence: str) -> None:
    whole = f"{text}\n\n<p>\n\n{fence}\nb\n{fence}"
    if find_fence_fault(text) == "":
        assert find_fence_fault(whole) == ""
