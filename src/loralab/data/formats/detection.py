"""Which form the rows of a file have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loralab.data.formats.columns import candidate_forms, check_columns, rename_columns
from loralab.data.formats.registry import FORMATS, Format
from loralab.data.sources import Row
from loralab.errors import DataError, did_you_mean

NUM_PROBED_ROWS = 50
"""Rows from the start of a file that must agree on the form."""


@dataclass(frozen=True, slots=True)
class Detection:
    """The form that the rows have, and why."""

    name: str
    """The value of `data.format`."""
    reason: str
    """One line for the user, such as `openai: 'messages' holds a list of {role, content}`."""


def detect_format(rows: Sequence[Row], columns: Mapping[str, str] | None = None) -> str:
    """Returns the name of the one form that the first rows have, after mapping the columns.

    Raises:
        DataError: No form fits, or more than one does.
    """
    return explain_detection(rows, columns).name


def explain_detection(rows: Sequence[Row], columns: Mapping[str, str] | None = None) -> Detection:
    """Finds the one form that the first rows have, after mapping the columns, and says why it is that one.

    Raises:
        DataError: No form fits, or more than one does.
    """
    columns = columns or {}
    forms = candidate_forms("auto", columns)
    check_columns(rows[0].fields, columns)
    left = forms
    for row in rows[:NUM_PROBED_ROWS]:
        fits = _fitting(left, rename_columns(row.fields, columns, forms))
        if not fits:
            raise DataError(_explain_none(row, left if row is not rows[0] else (), forms))
        left = fits
    if len(left) > 1:
        names = ", ".join(f"{form.name} ({form.expects})" for form in left)
        choices = " or ".join(f"data.format={form.name}" for form in left)
        raise DataError(f"data.format='auto': {len(left)} forms fit: {names}. Choose with {choices}.")
    mapped = ", ".join(f"data.columns.{name}={field!r}" for name, field in columns.items())
    reason = f"{left[0].name}: {left[0].evidence}"
    return Detection(left[0].name, f"{reason} ({mapped})" if mapped else reason)


def _fitting(forms: Sequence[Format], fields: dict[str, Any]) -> tuple[Format, ...]:
    """Returns the forms that fit without the fields that are null, or else with them.

    A table has a column in every row, so null means absent; but a row whose needed field is null
    still has its form, and converting it names the field.
    """
    present = {name: value for name, value in fields.items() if value is not None}
    fits = tuple(form for form in forms if form.matches(present) and not _lacks_answer(form, fields))
    return fits or tuple(form for form in forms if form.matches(fields))


def _lacks_answer(form: Format, fields: dict[str, Any]) -> bool:
    """Whether a row is without an answer only because that field is null."""
    return form.name == "prompts" and not form.matches(fields)


def _explain_none(row: Row, before: Sequence[Format], forms: Sequence[Format]) -> str:
    fields = ", ".join(row.fields) or "none"
    if before:
        name = before[0].name
        return (
            f"data.format='auto': {row.place} has the fields {fields} and does not fit {name!r} "
            f"({before[0].expects}) as the rows before it do.{_near_names(row, before)} "
            f"Mend the row, or set data.format={name} to see every such row."
        )
    known = "; ".join(f"{form.name} ({form.expects})" for form in forms)
    return (
        f"data.format='auto': no form fits {row.place}, which has the fields {fields}."
        f"{_near_names(row, forms)} Known forms: {known}. {_mapping_hint(row)}."
    )


def _near_names(row: Row, forms: Sequence[Format]) -> str:
    known = {alias for form in forms for aliases in form.columns.values() for alias in aliases}
    hints = [(field, did_you_mean(field, sorted(known - set(row.fields)))) for field in row.fields]
    return "".join(f" {field!r} is unknown.{hint}" for field, hint in hints if hint and field not in known)


def _mapping_hint(row: Row) -> str:
    if "chosen" in row.fields or "rejected" in row.fields:
        names = ("prompt", "chosen", "rejected")
        return f"Map the fields with {' '.join(f'data.columns.{name}=<field>' for name in names)}"
    for field, value in row.fields.items():
        if (
            isinstance(value, list)
            and value
            and isinstance(value[0], dict)
            and {"role", "from"} & set(value[0])
        ):
            return f"Map the fields with data.columns.messages={field}"
    return "Map the fields with data.columns.prompt=<field> data.columns.response=<field>"


def choose_format(rows: Sequence[Row], form: str, columns: Mapping[str, str]) -> Format:
    """Returns the form of the rows: the one named by `data.format`, or the one that fits.

    Raises:
        DataError: The columns do not suit the form or the first row, or no single form fits.
    """
    if form == "auto":
        return FORMATS[detect_format(rows, columns)]
    (chosen,) = candidate_forms(form, columns)
    check_columns(rows[0].fields, columns)
    return chosen
