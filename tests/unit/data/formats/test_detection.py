"""Finding the form of a file's rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from loralab.data.formats.detection import NUM_PROBED_ROWS, Detection, detect_format, explain_detection
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
        ({"question": "a", "answer": "b", "context": "c"}, "question_answer"),
        ({"prompt": "a", "key": 1}, "prompts"),
        ({"turns": ["a", "b"], "reference": ["c"]}, "prompts"),
        ({"turns": '["a", "b"]'}, "prompts"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"chosen": OPENAI, "rejected": OPENAI}, "preference"),
        ({"conversations": SHAREGPT, "chosen": {}, "rejected": {}}, "sharegpt_preference"),
        ({"prompt": "a", "completion": "b", "label": True}, "unpaired"),
        ({"prompt": "a", "response": "b", "label": "0"}, "unpaired"),
        ({"messages": OPENAI, "label": 1}, "unpaired"),
        ({"conversations": SHAREGPT, "kto_tag": False}, "unpaired"),
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
        ({"task": "a"}, {"prompt": "task"}, "prompts"),
        ({"task": "a", "chosen": "b", "rejected": "c"}, {"prompt": "task"}, "preference"),
        ({"prompt": "a", "win": "b", "lose": "c"}, {"chosen": "win", "rejected": "lose"}, "preference"),
        ({"dialog": SHAREGPT, "chosen": {}, "rejected": {}}, {"messages": "dialog"}, "sharegpt_preference"),
        ({"prompt": "a", "completion": "b", "good": True}, {"label": "good"}, "unpaired"),
        ({"dialog": SHAREGPT, "good": 0}, {"messages": "dialog", "label": "good"}, "unpaired"),
    ],
)
def test_mapped_columns_decide_the_form(fields: dict[str, Any], columns: dict[str, str], name: str) -> None:
    assert detect_format(rows(fields), columns) == name


@pytest.mark.parametrize(
    "others",
    [
        {"text": "x", "score_chosen": 1.0},
        {"messages": OPENAI},
        {"completion": "x"},
        {"question": "x", "answer": "y"},
        {"instruction": "x", "output": "y"},
        {"label": 1},
    ],
)
def test_prompt_with_two_answers_is_a_preference_pair_whatever_else_is_there(others: dict[str, Any]) -> None:
    assert detect_format(rows({"prompt": "a", "chosen": "b", "rejected": "c", **others})) == "preference"


@pytest.mark.parametrize("answer", ["completion", "response", "text", "output", "chosen"])
def test_prompt_with_an_answer_field_is_not_prompts_alone(answer: str) -> None:
    try:
        assert detect_format(rows({"prompt": "a", answer: "b"})) != "prompts"
    except DataError as error:
        assert "no form fits" in str(error)


def test_label_that_is_no_yes_or_no_judges_nothing() -> None:
    assert detect_format(rows({"prompt": "a", "completion": "b", "label": "sports"})) == "prompt_completion"
    assert detect_format(rows({"messages": OPENAI, "label": 3})) == "openai"


def test_columns_that_are_null_are_absent() -> None:
    nulls = {"text": None, "prompt": None, "chosen": None, "rejected": None, "label": None}
    assert detect_format(rows({**nulls, "instruction": "a", "output": "b"})) == "alpaca"
    assert detect_format(rows({**nulls, "messages": OPENAI})) == "openai"


def test_row_with_a_null_answer_keeps_its_form() -> None:
    null = {"prompt": "a", "completion": None}
    assert detect_format(rows(null, {"prompt": "a", "completion": "b"})) == "prompt_completion"
    assert detect_format(rows({"instruction": "a", "output": None})) == "alpaca"


def test_reason_says_what_the_rows_have() -> None:
    assert explain_detection(rows({"messages": OPENAI})) == Detection(
        "openai", "openai: 'messages' holds a list of {role, content}"
    )
    mapped = explain_detection(rows({"dialog": SHAREGPT}), {"messages": "dialog"})
    assert mapped.reason == (
        "sharegpt: 'conversations' holds a list of {from, value} (data.columns.messages='dialog')"
    )


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("alpaca_en_demo.json", "alpaca"),
        ("dpo_en_demo.json", "sharegpt_preference"),
        ("v1_sft_demo.jsonl", "openai"),
        ("gsm8k_train.jsonl", "question_answer"),
        ("ifeval_prompts.jsonl", "prompts"),
        ("mt_bench_questions.jsonl", "prompts"),
    ],
)
def test_public_files_are_recognised(shared_data: Path, name: str, form: str) -> None:
    text = (shared_data / name).read_text(encoding="utf-8")
    values = json.loads(text) if name.endswith(".json") else map(json.loads, text.splitlines())
    assert detect_format(rows(*values)) == form


def test_no_form_shows_fields_forms_and_mapping() -> None:
    message = fault({"query": "a", "reply": "b"})
    assert "no form fits line 1, which has the fields query, reply." in message
    assert "alpaca (instruction, output)" in message
    assert "text (text)" in message
    assert message.endswith("Map the fields with data.columns.prompt=<field> data.columns.response=<field>.")
    assert "Did you mean" not in message


def test_no_form_names_close_fields() -> None:
    message = fault({"instructoin": "a", "output": "b"})
    assert "'instructoin' is unknown. Did you mean 'instruction'?" in message


def test_no_form_with_turns_asks_for_the_messages_column() -> None:
    assert fault({"dialog": SHAREGPT}).endswith("Map the fields with data.columns.messages=dialog.")


def test_half_a_preference_pair_asks_for_its_columns() -> None:
    message = fault({"prompt": "a", "chosen": "b", "lost": "c"})
    assert "the fields prompt, chosen, lost." in message
    assert message.endswith(
        "Map the fields with data.columns.prompt=<field> data.columns.chosen=<field> "
        "data.columns.rejected=<field>."
    )


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
        "prompt, response, system; messages, system; prompt, system; text; prompt, chosen, rejected, system; "
        "messages, chosen, rejected, system; prompt, response, messages, label, system."
    )


def test_unknown_column_name_is_refused() -> None:
    message = fault({"a": "b"}, columns={"promt": "a"})
    assert message.startswith(
        "data.columns.promt is unknown. Did you mean 'prompt'? Known: prompt, response, "
    )
