"""The type of a table's column, widened value by value."""

from functools import reduce
from typing import Any

import pyarrow as pa
import pytest

from loralab.data.table_types import NULL, JsonText, arrow_type, to_cell, widen
from loralab.errors import DataError

TURN = pa.struct([("role", pa.string()), ("content", pa.string()), ("name", pa.string())])
CALLING = pa.struct([("call", pa.struct([("id", pa.string())]))])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None, None], pa.null()),
        (["a", None], pa.string()),
        ([True, False], pa.bool_()),
        ([1, None, 2], pa.int64()),
        ([1, 0.5], pa.float64()),
        ([[], [1]], pa.list_(pa.int64())),
        ([[{"role": "u", "content": "a"}], [{"role": "t", "content": "b", "name": "c"}]], pa.list_(TURN)),
        ([[{"call": {"id": "1"}}], [{"call": {"id": "2"}}]], pa.list_(CALLING)),
        ([[{"call": {"id": "1"}}], [{"call": {"key": "2"}}]], pa.string()),
        ([[1, "a"]], pa.string()),
        ([{}], pa.string()),
        (["text", [1]], pa.string()),
        ([[1], "text", {"a": 1}], pa.string()),
    ],
)
def test_column_type_holds_every_value(values: list[Any], expected: pa.DataType) -> None:
    assert arrow_type(reduce(widen, values, NULL)) == expected


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["a", 1], "holds a number where rows before it hold a string"),
        ([1, True], "holds true or false where rows before it hold a number"),
        ([[1], 1], "holds a number where rows before it hold a list"),
        ([1, [1]], "holds a list where rows before it hold a number"),
        ([object()], "holds a object, which a table has no type for"),
    ],
)
def test_values_without_a_common_type_are_refused(values: list[Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        reduce(widen, values, NULL)


def test_only_lists_and_objects_become_json_text() -> None:
    assert to_cell([{"a": "é"}], JsonText()) == '[{"a": "é"}]'
    assert to_cell("plain", JsonText()) == "plain"
    assert to_cell([1], arrow_type(widen(NULL, [1]))) == [1]
