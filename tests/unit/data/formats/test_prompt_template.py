"""Turns from Jinja templates."""

import pickle
from typing import Any

import pytest

from loralab.data.formats.prompt_template import PromptTemplate
from loralab.data.records import Conversation, Message
from loralab.errors import ConfigError, DataError


def render(user: str, **fields: Any) -> str:
    return PromptTemplate(None, user, None).render(fields).messages[0].content


def fault(user: str, **fields: Any) -> str:
    with pytest.raises(DataError) as error:
        render(user, **fields)
    return str(error.value)


def test_turns_are_built_from_any_fields() -> None:
    template = PromptTemplate("Be {{ tone }}.", "{{ title }}\n\n{{ body }}", "{{ summary }}")
    row = {"tone": "brief", "title": "T", "body": "B <b>", "summary": "S", "other": 1}
    assert template.render(row) == Conversation(
        (Message("system", "Be brief."), Message("user", "T\n\nB <b>"), Message("assistant", "S"))
    )


def test_absent_and_empty_system_turns_are_left_out() -> None:
    assert PromptTemplate(None, "a", None).render({}) == Conversation((Message("user", "a"),))
    template = PromptTemplate("{{ tone or '' }}", "a", "b")
    expected = Conversation((Message("user", "a"), Message("assistant", "b")))
    assert template.render({"tone": None}) == expected
    assert template.render({"tone": ""}) == expected


@pytest.mark.parametrize(
    ("user", "fields", "expected"),
    [
        ("{% for o in options %}\n- {{ o }}\n{% endfor %}", {"options": ["x", "y"]}, "- x\n- y\n"),
        ("{% if note %}{{ note }}{% else %}none{% endif %}", {"note": None}, "none"),
        ("{% if note is defined %}{{ note }}{% endif %}.", {}, "."),
        ("{{ data | tojson }}", {"data": {"é": "<b>", "n": None}}, '{"é": "<b>", "n": null}'),
        ("{{ nested.key }}", {"nested": {"key": 3}}, "3"),
    ],
)
def test_jinja_works_as_in_chat_templates(user: str, fields: dict[str, Any], expected: str) -> None:
    assert render(user, **fields) == expected


def test_template_travels_to_other_processes() -> None:
    template = pickle.loads(pickle.dumps(PromptTemplate(None, "{{ a }}", None)))
    assert template.render({"a": "b"}) == Conversation((Message("user", "b"),))


@pytest.mark.parametrize(
    ("user", "fields", "expected"),
    [
        (
            "{{ titel }}",
            {"title": "T", "body": "B"},
            "the field 'titel' is missing. Did you mean 'title'? Fields: title, body",
        ),
        ("{{ title }}", {}, "the field 'title' is missing. Fields: none"),
        ("{{ a.key }}", {"a": {}}, "'dict object' has no attribute 'key'"),
        (
            "{{ title }}",
            {"title": None},
            "a field holds null ('title') and would be printed as None; write {{ field or '' }}",
        ),
        (
            "{{ a.key }}",
            {"a": {"key": None}},
            "an expression gives null and would be printed as None; write {{ field or '' }}",
        ),
        ("{{ a + 1 }}", {"a": "x"}, 'TypeError: can only concatenate str (not "int") to str'),
        ("{{ 1 / a }}", {"a": 0}, "ZeroDivisionError: division by zero"),
        (
            "{{ a.append(1) }}",
            {"a": []},
            "SecurityError: access to attribute 'append' of 'list' object is unsafe.",
        ),
    ],
)
def test_fault_of_a_row_names_the_template(user: str, fields: dict[str, Any], expected: str) -> None:
    assert fault(user, **fields) == f"data.prompt_template.user: {expected}"


def test_fault_names_the_template_of_its_turn() -> None:
    with pytest.raises(DataError, match=r"data\.prompt_template\.assistant: the field 'x' is missing"):
        PromptTemplate(None, "a", "{{ x }}").render({})


@pytest.mark.parametrize(
    ("templates", "expected"),
    [
        ((None, "a\n{% if %}", None), "data.prompt_template.user is no valid Jinja, line 2: "),
        (("{{ a", "b", None), "data.prompt_template.system is no valid Jinja, line 1: "),
        ((None, "a", "{{ b | nosuch }}"), "data.prompt_template.assistant is no valid Jinja, line 1: "),
        ((None, None, "a"), "data.prompt_template.user=null leaves the turns without a request"),
    ],
)
def test_broken_template_is_found_before_any_row(
    templates: tuple[str | None, str | None, str | None], expected: str
) -> None:
    with pytest.raises(ConfigError) as error:
        PromptTemplate(*templates)
    assert str(error.value).startswith(expected)
