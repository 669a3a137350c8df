"""Column mapping: the user's field names become those that a form expects."""

from collections.abc import Mapping, Sequence
from typing import Any

from loralab.data.formats.registry import FORMATS, Format
from loralab.errors import DataError, did_you_mean

MAPPED_FORMS: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt_completion", "prompts", "preference", "unpaired"),
    "response": ("prompt_completion", "unpaired"),
    "messages": ("openai", "sharegpt", "sharegpt_preference", "unpaired"),
    "text": ("text",),
    "chosen": ("preference", "sharegpt_preference"),
    "rejected": ("preference", "sharegpt_preference"),
    "label": ("unpaired",),
}
"""The forms that a mapped column stands for under `data.format=auto`; `system` leaves the form open."""

OPTIONAL_COLUMNS = ("system",)
"""Columns that rows after the first may lack."""


def candidate_forms(form: str, columns: Mapping[str, str]) -> tuple[Format, ...]:
    """Returns the forms that rows can have, given `data.format` and the mapped columns.

    Raises:
        DataError: No form takes all of the columns.
    """
    if form != "auto":
        names: Sequence[str] = (form,)
    else:
        names = [n for n in FORMATS if all(n in MAPPED_FORMS.get(column, FORMATS) for column in columns)]
    forms = tuple(FORMATS[n] for n in names if all(column in FORMATS[n].columns for column in columns))
    if columns and not forms:
        raise DataError(_explain_misfit(form, columns))
    return forms


def check_columns(fields: dict[str, Any], columns: Mapping[str, str]) -> None:
    """Checks that the first row has every mapped column.

    Raises:
        DataError: A column is not among the row's fields.
    """
    for name, field in columns.items():
        if field not in fields:
            hint = did_you_mean(field, fields)
            raise DataError(
                f"data.columns.{name}={field!r} is not a field of the first row.{hint} "
                f"Fields: {', '.join(fields)}."
            )


def rename_columns(
    fields: dict[str, Any], columns: Mapping[str, str], forms: Sequence[Format]
) -> dict[str, Any]:
    """Returns a row's fields under the names that the forms expect.

    A mapped column replaces every field that the form would read in its place.

    Raises:
        DataError: The row lacks a mapped column that is not optional.
    """
    if not columns:
        return fields
    renamed = {name: value for name, value in fields.items() if name not in columns.values()}
    for name, field in columns.items():
        if field not in fields and name not in OPTIONAL_COLUMNS:
            hint = did_you_mean(field, fields)
            raise DataError(f"the field {field!r} (data.columns.{name}) is missing.{hint}")
        for form in forms:
            for alias in form.columns[name]:
                renamed.pop(alias, None)
    for name, field in columns.items():
        for form in forms:
            if field in fields:
                renamed[form.columns[name][0]] = fields[field]
    return renamed


def explain_columns(message: str, columns: Mapping[str, str], form: Format) -> str:
    """Adds to a message about a form's field which column of the user's was read for it."""
    read = [
        f"data.columns.{name}={field!r}"
        for name, field in columns.items()
        if f"'{form.columns[name][0]}'" in message
    ]
    return f"{message} ({', '.join(read)})" if read else message


def _explain_misfit(form: str, columns: Mapping[str, str]) -> str:
    given = " ".join(f"data.columns.{name}={field}" for name, field in columns.items())
    known = {name: None for each in FORMATS.values() for name in each.columns}
    for name in columns:
        if name not in known:
            hint = did_you_mean(name, known)
            return f"data.columns.{name} is unknown.{hint} Known: {', '.join(known)}."
    if form != "auto":
        allowed = ", ".join(FORMATS[form].columns)
        return f"data.format={form!r} does not take all of {given}; it takes: {allowed}."
    takes = "; ".join(dict.fromkeys(", ".join(each.columns) for each in FORMATS.values()))
    return f"{given} do not go together; columns that do: {takes}."
