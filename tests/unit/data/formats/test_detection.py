"""Finding the form of a file's rows."""

from typing import Any

import pytest

from loralab.data.formats.detection import NUM_PROBED_ROWS, detect_format
from loralab.data.sources import Row
from loralab.errors import DataError

OPENAI = [{"role": "user", "content": "a"}]
SHAREGPT = [{"from": "human", "value": "a"}]


def rows(*fields: dict[str, Any]) -> list[Row]:
    return [Row(line, each) for line, each in enumerate(fields, start=1)]


def fault(*fields: dict[str, Any], columns: dict[str, str] | None = None) -> str:
    with pytest.raises(DataError) as error:
        detect_format(rows(*fields), columns)
    return str(error.value)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca"),
        ({"conversations": SHAREGPT}, "sharegpt"),
        ({"messages": OPENAI, "prompt": "a"}, "openai"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion"),
        ({"prompt": OPENAI, "completion": []}, "prompt_completion"),
        ({"text": "a"}, "text"),
    ],
)
def test_each_form_is_found(fields: dict[str, Any], name: str) -> None:
    assert detect_format(rows(fields)) == name


@pytest.mark.parametrize(
    ("fields", "columns", "name"),
    [
        ({"question": "a", "answer": "b"}, {"prompt": "question", "response": "answer"}, "prompt_completion"),
        (
            {"instruction": "a", "output": "b"},
            {"prompt": "instruction", "response": "output"},
            "prompt_completion",
        ),
        ({"question": "a", "response": "b"}, {"prompt": "question"}, "prompt_completion"),
        ({"body": "a"}, {"text": "body"}, "text"),
        ({"dialog": OPENAI}, {"messages": "dialog"}, "openai"),
        ({"dialog": SHAREGPT}, {"messages": "dialog"}, "sharegpt"),
        ({"conversations": OPENAI}, {"messages": "conversations"}, "openai"),
        ({"instruction": "a", "output": "b", "persona": "s"}, {"system": "persona"}, "alpaca"),
    ],
)
def test_mapped_columns_decide_the_form(fields: dict[str, Any], columns: dict[str, str], name: str) -> None:
    assert detect_format(rows(fields), columns) == name


def test_no_form_shows_fields_forms_and_mapping() -> None:
    message = fault({"question": "a", "answer": "b"})
    assert "no form fits line 1, which has the fields question, answer." in message
    assert "alpaca (instruction, output)" in message
    assert "text (text)" in message
    assert message.endswith("Map the fields with data.columns.prompt=<field> data.columns.response=<field>.")
    assert "Did you mean" not in message


def test_no_form_names_close_fields() -> None:
    message = fault({"instructoin": "a", "output": "b"})
    assert "'instructoin' is unknown. Did you mean 'instruction'?" in message


def test_no_form_with_turns_asks_for_the_messages_column() -> None:
    assert fault({"dialog": SHAREGPT}).endswith("Map the fields with data.columns.messages=dialog.")


def test_preference_pairs_are_refused_as_such() -> None:
    message = fault({"conversations": SHAREGPT, "chosen": {}, "rejected": {}})
    assert "the fields conversations, chosen, rejected." in message
    assert message.endswith("Preference pairs are not supported yet.")


def test_row_unlike_those_before_is_named() -> None:
    good = {"instruction": "a", "output": "b"}
    message = fault(good, good, {"instruction": "a", "outptu": "b"})
    assert (
        "line 3 has the fields instruction, outptu and does not fit 'alpaca' (instruction, output)" in message
    )
    assert "'outptu' is unknown. Did you mean 'output'?" in message
    assert "data.format=alpaca" in message


def test_only_the_first_rows_are_probed() -> None:
    good = {"text": "a"}
    assert detect_format(rows(*[good] * NUM_PROBED_ROWS, {"body": "a"})) == "text"
    assert "line 50" in fault(*[good] * (NUM_PROBED_ROWS - 1), {"body": "a"})


def test_two_fitting_forms_are_refused() -> None:
    message = fault({"instruction": "a", "output": "b", "text": "c"})
    assert message == (
        "data.format='auto': 2 forms fit: alpaca (instruction, output), text (text). "
        "Choose with data.format=alpaca or data.format=text."
    )


def test_later_row_settles_between_two_forms() -> None:
    both = {"instruction": "a", "output": "b", "text": "c"}
    assert detect_format(rows(both, {"instruction": "a", "output": "b"})) == "alpaca"


def test_mapped_column_missing_in_first_row() -> None:
    message = fault({"question": "a", "answer": "b"}, columns={"prompt": "questoin"})
    assert message == (
        "data.columns.prompt='questoin' is not a field of the first row. Did you mean 'question'? "
        "Fields: question, answer."
    )


def test_mapped_column_missing_in_later_row() -> None:
    message = fault({"q": "a", "response": "b"}, {"qq": "a", "response": "b"}, columns={"prompt": "q"})
    assert message.startswith("the field 'q' (data.columns.prompt) is missing.")


def test_columns_of_two_forms_are_refused() -> None:
    message = fault({"a": "b", "c": "d"}, columns={"prompt": "a", "text": "c"})
    assert message == (
        "data.columns.prompt=a data.columns.text=c do not go together; columns that do: "
        "prompt, response, system; messages, system; text."
    )


def test_unknown_column_name_is_refused() -> None:
    message = fault({"a": "b"}, columns={"promt": "a"})
    assert message.startswith(
        "data.columns.promt is unknown. Did you mean 'prompt'? Known: prompt, response, "
    )
