"""The one type of a table's column, found from values that come one at a time."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from loralab.data.sources import json_type
from loralab.errors import DataError

NULL, BOOL, INT, FLOAT, STRING = pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string()


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list whose items have one type."""

    item: "ColumnType"
    """Type of the items."""


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """An object with fields of known types."""

    fields: tuple[tuple[str, "ColumnType"], ...]
    """Name and type of each."""


@dataclass(frozen=True, slots=True)
class JsonText:
    """Lists and objects of several types, which a column holds as JSON text."""


ColumnType: TypeAlias = pa.DataType | ListOf | ObjectOf | JsonText
"""What the values of a column are."""


class _MixedTypesError(Exception):
    """Two values have no type in common."""


def widen(known: ColumnType, value: Any) -> ColumnType:
    """Returns the type of a column after one more value.

    Objects in the column, such as the turns of a conversation, may lack each other's fields: null is filled
    in. Objects below them, such as the arguments of a call, must have the same fields; where they do not, or
    where types differ, the lists and objects of the column become JSON text.

    Raises:
        DataError: The value is of another type than those before it, and JSON text does not help.
    """
    if isinstance(known, JsonText) and isinstance(value, list | dict | str | None):
        return known
    try:
        return _merge(known, _type_of(value, 0), 0)
    except _MixedTypesError:
        nested = isinstance(value, list | dict), isinstance(known, ListOf | ObjectOf | JsonText)
        if all(nested) or (nested[0] and known in (NULL, STRING)) or (nested[1] and isinstance(value, str)):
            return JsonText()
        raise DataError(
            f"holds {json_type(value)} where rows before it hold {_named(known)}; a column has one type"
        ) from None


def arrow_type(column: ColumnType) -> pa.DataType:
    """Returns the Arrow type that holds a column."""
    if isinstance(column, ListOf):
        return pa.list_(arrow_type(column.item))
    if isinstance(column, ObjectOf):
        return pa.struct([(name, arrow_type(each)) for name, each in column.fields])
    return STRING if isinstance(column, JsonText) else column


def to_cell(value: Any, column: ColumnType) -> Any:
    """Returns a value as its column holds it."""
    if isinstance(column, JsonText) and isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value


def _type_of(value: Any, depth: int) -> ColumnType:
    """The type of one value; `depth` counts the objects around it."""
    if value is None:
        return NULL
    if isinstance(value, list):
        return ListOf(_merged((_type_of(item, depth) for item in value), depth))
    if isinstance(value, Mapping):
        if not value:
            raise _MixedTypesError  # Parquet has no object without fields.
        return ObjectOf(tuple((str(name), _type_of(each, depth + 1)) for name, each in value.items()))
    for kind, found in ((bool, BOOL), (int, INT), (float, FLOAT), (str, STRING)):
        if isinstance(value, kind):
            return found
    try:
        return pa.infer_type([value])
    except pa.ArrowException:
        raise DataError(f"holds a {type(value).__name__}, which a table has no type for") from None


def _merged(types: Iterable[ColumnType], depth: int) -> ColumnType:
    common: ColumnType = NULL
    for each in types:
        common = _merge(common, each, depth)
    return common


def _merge(first: ColumnType, second: ColumnType, depth: int) -> ColumnType:
    if second in (first, NULL):
        return first
    if first == NULL:
        return second
    if isinstance(first, ListOf) and isinstance(second, ListOf):
        return ListOf(_merge(first.item, second.item, depth))
    if isinstance(first, ObjectOf) and isinstance(second, ObjectOf):
        return _merge_objects(first, second, depth)
    if {first, second} == {INT, FLOAT}:
        return FLOAT
    raise _MixedTypesError


def _merge_objects(first: ObjectOf, second: ObjectOf, depth: int) -> ObjectOf:
    ours, theirs = dict(first.fields), dict(second.fields)
    if depth > 0 and ours.keys() != theirs.keys():
        raise _MixedTypesError
    names = {**ours, **theirs}
    return ObjectOf(tuple(
        (name, _merge(ours.get(name, NULL), theirs.get(name, NULL), depth + 1)) for name in names
    ))  # fmt: skip


def _named(column: ColumnType) -> str:
    names = {BOOL: "true or false", INT: "a number", FLOAT: "a number", STRING: "a string"}
    if isinstance(column, pa.DataType):
        return names.get(column, f"a {column}")
    return "an object" if isinstance(column, ObjectOf) else "a list"
