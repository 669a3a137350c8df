"""What is wrong with a key or a value, said from the schema instead of in a library's words."""

import dataclasses
import errno
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
"""What a value of a type is called."""

_AS_IT_IS = re.compile(r"null|true|false|[-+.\d].*|[\[{].*", re.IGNORECASE)
"""Values that are shown without quotes."""
_REFUSED = re.compile(r"Value '(.*)' (?:of type|is not a valid)|Cannot convert '\w+' to string: '(.*)'")

NAMELESS_CHOICE = "Config group override must be"
"""How Hydra begins its refusal of a number or null for a group."""
UNWRITABLE = (
    errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
)  # fmt: skip
"""What a disk answers that the user can mend: no permission, no such folder, no room."""


def leaf_keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Yields every dotted key of a schema, such as `lora.r`."""
    for item in dataclasses.fields(schema):
        if isinstance(item.type, type) and dataclasses.is_dataclass(item.type):
            yield from leaf_keys(item.type, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def dotted_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the dotted key of every value in nested mappings."""
    for name, value in tree.items():
        is_group = isinstance(value, Mapping)
        yield from dotted_keys(value, f"{prefix}{name}.") if is_group else [f"{prefix}{name}"]


def explain_type(schema: type, key: str, value: str, prefix: str = "") -> str:
    """Says what a key takes, where a value is of another type; empty where the schema does not say.

    Args:
        schema: A root dataclass.
        key: A dotted key of it, with the place where it is in a list, such as `optim.betas[0]`.
        value: The value as the user wrote it; empty where that is not known.
        prefix: What stands before the key for the user, such as `data.`.
    """
    kind, is_nullable = _type_of(schema, key)
    value = value.strip("'\"")
    name = f"{prefix}{key}"
    given = f"{name}={value if _AS_IT_IS.fullmatch(value) else repr(value)}" if value else name
    or_null = " or null" if is_nullable else ""
    if typing.get_origin(kind) is list:
        return f"{given} is not a list{or_null}. {_advise_list(name, value, kind)}"
    if dataclasses.is_dataclass(kind):
        example = f"{name}.{dataclasses.fields(kind)[0].name}"
        return f"{given} is not a group of keys{or_null}. Set each by itself, such as {example}=VALUE."
    return f"{given} is not {KINDS[kind]}{or_null}." if kind in KINDS else ""


def explain_form(text: str) -> str:
    """Says what is wrong with how an override is written; empty where its form is sound."""
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, values = several[1].partition("=")
        return f"{several[1]} gives several values. Add -m for one run each; a list is {key}=[{values}]."
    if twice := re.search(r"Multiple values for (\w+)\.", text):
        return f"{twice[1]} is given twice. Give it once and without '+': {twice[1]}=NAME."
    if removed := re.search(r"Error merging override (~\S+)", text):
        return f"{removed[1]} cannot be removed. Give it another value, or null where that is allowed."
    return ""


def explain_syntax(override: str, reason: str) -> str:
    """Says that an override cannot be read, and how to write a value with signs that mean something.

    Args:
        override: The override as typed.
        reason: What the library says; its lexer names nothing but itself.
    """
    key, _, value = override.partition("=")
    why = "" if reason.startswith("Lexer") else f": {reason.rstrip('.')}"
    quoted = f""" Put quotes around the value, inside those of the shell: "{key}='{value}'"."""
    return f"cannot read {override!r}{why}.{quoted if key and value and value[0] not in '[{' else ''}"


def explain_unwritable(error: OSError) -> str:
    """Says what could not be written, and why."""
    return (
        f"error: cannot write {error.filename or 'to the disk'}: {error.strerror}. Choose another folder, or "
        "make room."
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else f"error: cannot write {error.filename}: {error.strerror}. Choose another folder."
    )


def explain_group(words: Sequence[str], groups: Iterable[str]) -> str:
    """Says which group was given a number or null, which Hydra refuses without saying.

    Args:
        words: The overrides as typed.
        groups: Every group.
    """
    pairs = [word.lstrip("+").partition("=") for word in words]
    nameless = re.compile(r"null|true|false|[-+.\d].*", re.IGNORECASE)
    known = {"", *groups}
    wrong = [f"{key}={value}" for key, _, value in pairs if key in known and nameless.fullmatch(value)]
    return f"{' '.join(wrong)}: a group takes the name of one of its choices, such as lora=r8; see --help."


def holds_any_key(schema: type, key: str) -> bool:
    """Whether a key of a schema holds a mapping whose keys the schema leaves open."""
    return typing.get_origin(_type_of(schema, key)[0]) is dict


def refused_value(text: str) -> str:
    """Finds the value that the text of an error refuses; empty where it does not tell."""
    if "is not Optional" in text:
        return "null"
    found = _REFUSED.search(text)
    return (found[1] or found[2] or "") if found else ""


def _advise_list(name: str, value: str, kind: Any) -> str:
    if value == "null":
        return "Give a list, or leave the key out."
    entry = value or "VALUE"
    if typing.get_args(kind) == (Any,) and not entry.startswith("{"):
        entry = f"{{path:{entry}}}"
    return f"Write {name}=[{entry}]."


def _type_of(schema: type, key: str) -> tuple[Any, bool]:
    """Returns the type that a key has without null, and whether it may be null."""
    kind: Any = schema
    is_nullable = False
    for part in key.split("."):
        name, bracket, _ = part.partition("[")
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        kind, is_nullable = _without_null(hints.get(name, Any))
        if bracket:
            kind, is_nullable = _without_null((*typing.get_args(kind), Any)[0])
    return kind, is_nullable


def _without_null(kind: Any) -> tuple[Any, bool]:
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return kind, False
    (inner,) = [each for each in typing.get_args(kind) if each is not type(None)]
    return inner, True
