"""Turns from any fields of a row: Jinja templates that the user writes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from loralab.data.records import Conversation, Message
from loralab.errors import ConfigError, DataError, did_you_mean

_KEY = "data.prompt_template"
_FAILURES = (
    TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
)


class _NullPrintedError(ValueError):
    """A template prints null, which would put the word None into the text."""


@dataclass(frozen=True, slots=True)
class _Part:
    role: str
    template: Template
    names: frozenset[str]
    """The fields that the template reads."""


class PromptTemplate:
    """Builds the turns of a row from its fields."""

    def __init__(self, system: str | None, user: str | None, assistant: str | None) -> None:
        """Compiles the templates, once for all rows.

        Args:
            system: Template of the system turn; None or an empty result leaves the turn out.
            user: Template of the user turn.
            assistant: Template of the assistant turn; None leaves it out.

        Raises:
            ConfigError: A template is no valid Jinja, or there is none for the user turn.
        """
        self._sources = (system, user, assistant)
        if user is None:
            raise ConfigError(f"{_KEY}.user=null leaves the turns without a request; give a template for it.")
        environment = _environment()
        sources = {"system": system, "user": user, "assistant": assistant}
        self._parts = tuple(
            _compile(environment, role, source) for role, source in sources.items() if source is not None
        )

    def __reduce__(self) -> tuple[type["PromptTemplate"], tuple[str | None, ...]]:
        """Travels to other processes as its sources, since compiled templates cannot."""
        return type(self), self._sources

    def render(self, fields: Mapping[str, Any]) -> Conversation:
        """Returns the conversation of one row.

        Raises:
            DataError: A template reads a field that the row lacks, prints null, or fails.
        """
        messages = [Message(part.role, _render(part, fields)) for part in self._parts]
        if messages[0].role == "system" and not messages[0].content:
            del messages[0]
        return Conversation(tuple(messages))


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_refuse_null
    )
    environment.filters["tojson"] = _to_json
    return environment


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise _NullPrintedError("null would be printed")
    return value


def _to_json(value: Any, indent: int | None = None) -> str:
    """Jinja's own filter escapes characters for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _compile(environment: ImmutableSandboxedEnvironment, role: str, source: str) -> _Part:
    try:
        names = meta.find_undeclared_variables(environment.parse(source))
        return _Part(role, environment.from_string(source), frozenset(names - environment.globals.keys()))
    except TemplateSyntaxError as error:
        raise ConfigError(f"{_KEY}.{role} is no valid Jinja, line {error.lineno}: {error.message}") from None
    except TemplateError as error:
        raise ConfigError(f"{_KEY}.{role} is no valid Jinja: {error}") from None


def _render(part: _Part, fields: Mapping[str, Any]) -> str:
    try:
        return part.template.render(fields)
    except UndefinedError as error:
        raise DataError(f"{_KEY}.{part.role}: {_explain_undefined(part, fields, str(error))}") from None
    except _NullPrintedError:
        nulls = ", ".join(repr(name) for name in sorted(part.names) if fields.get(name, "") is None)
        what = f"a field holds null ({nulls})" if nulls else "an expression gives null"
        raise DataError(
            f"{_KEY}.{part.role}: {what} and would be printed as None; write {{{{ field or '' }}}}"
        ) from None
    except _FAILURES as error:
        raise DataError(f"{_KEY}.{part.role}: {type(error).__name__}: {error}") from None


def _explain_undefined(part: _Part, fields: Mapping[str, Any], message: str) -> str:
    for name in sorted(part.names):
        if name not in fields and f"{name!r} is undefined" in message:
            known = ", ".join(map(str, fields)) or "none"
            hint = did_you_mean(name, map(str, fields))
            return f"the field {name!r} is missing.{hint} Fields: {known}"
    return message
