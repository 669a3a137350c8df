"""`loralab data convert`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loralab.cli.converting import fingerprint
from loralab.data.formats.registry import FORMATS
from loralab.data.records import Record
from loralab.data.serialization import record_to_json
from loralab.data.sources import Row, read_rows
from loralab.data.writing import KINDS

Run = Callable[..., Any]
USER, ANSWER = {"role": "user", "content": 'a "b",\n\tc'}, {"role": "assistant", "content": "é 你好 \u2028"}
HUMAN, GPT = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}
ROWS_OF: dict[str, list[dict[str, Any]]] = {
    "alpaca": [
        {"instruction": "a", "input": "b", "output": "c"},
        {"instruction": "d", "output": "e", "system": "s", "history": [["f", "g"]]},
    ],
    "sharegpt": [{"conversations": [HUMAN, GPT]}, {"conversations": [HUMAN, GPT, HUMAN, GPT], "system": "s"}],
    "openai": [
        {"messages": [USER, ANSWER]},
        {"messages": [USER, {**ANSWER, "weight": 0.5}], "tools": [{"name": "f", "parameters": {"x": None}}]},
        {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1", "function": {"name": "f", "arguments": {"x": 1}}}]},
            {"role": "tool", "content": "2", "tool_call_id": "1"}, ANSWER]},
    ],
    "prompt_completion": [
        {"prompt": "a", "completion": "b"}, {"prompt": "[1]", "completion": "c", "system": "s"},
    ],
    "question_answer": [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d\r\n"}],
    "prompts": [{"prompt": "a"}, {"prompt": "b", "system": "s"}],
    "text": [{"text": "a"}, {"text": " [b]"}],
    "preference": [
        {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "d", "chosen": "e", "rejected": "f"},
    ],
    "sharegpt_preference": [
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "c"}},
        {"conversations": [HUMAN, GPT, HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "d"}},
    ],
    "unpaired": [
        {"prompt": "a", "completion": "b", "label": True}, {"prompt": "c", "completion": "d", "label": False},
    ],
}  # fmt: skip
TURNS = [USER, ANSWER, USER]
PAIRS = [
    {"prompt": "a", "chosen": "b", "rejected": "c"},
    {"prompt": TURNS, "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "no"}]},
]


def records(path: Path, form: str) -> list[Record]:
    """The records of a file, without their places."""
    rows = list(read_rows(path))
    assert all(isinstance(row, Row) for row in rows)
    return [FORMATS[form].to_record(row.fields) for row in rows]  # type: ignore[union-attr]


def test_there_are_rows_of_every_form() -> None:
    assert ROWS_OF.keys() == FORMATS.keys()


@pytest.mark.parametrize("kind", [*KINDS, ".jsonl.gz", ".csv.zst"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_form_in_every_kind_gives_the_same_records(
    run: Run, write_rows: Run, tmp_path: Path, form: str, kind: str
) -> None:
    source = write_rows("rows.jsonl", ROWS_OF[form])
    expected = records(source, form)
    result = run("convert", "rows.jsonl", f"out{kind}", "--to", form, f"format={form}")
    num_rows = len(expected)
    assert result.output.splitlines() == [
        f"{form}  {num_rows} rows  out{kind}",
        f"rows: {num_rows} read = {num_rows} kept + 0 left out; {num_rows} written",
    ]
    assert records(tmp_path / f"out{kind}", form) == expected
    assert run("convert", f"out{kind}", "back.jsonl", "--to", form, f"format={form}").exit_code == 0
    assert records(tmp_path / "back.jsonl", form) == expected


@pytest.mark.parametrize("target", ["sharegpt", "openai", "prompt_completion", "question_answer"])
def test_a_form_goes_to_another_and_comes_back(
    run: Run, write_rows: Run, tmp_path: Path, target: str
) -> None:
    rows = [
        {"instruction": "a", "input": "", "output": "b"},
        {"instruction": "c\n\nd", "input": "", "output": "e"},
    ]
    write_rows("rows.jsonl", rows)
    run("convert", "rows.jsonl", "there.jsonl", "--to", target)
    run("convert", "there.jsonl", "back.jsonl", "--to", "alpaca")
    assert [json.loads(line) for line in (tmp_path / "back.jsonl").read_text().splitlines()] == rows


def test_the_row_of_a_conversation_is_what_the_form_says(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows("rows.jsonl", [{"question": "a", "answer": "b"}])
    run("convert", "rows.jsonl", "out.jsonl", "--to", "openai")
    assert (tmp_path / "out.jsonl").read_text() == (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )


def test_several_files_of_several_forms_become_one(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows("a.jsonl", ROWS_OF["alpaca"])
    write_rows("b.jsonl", ROWS_OF["question_answer"])
    result = run("convert", "a.jsonl", "b.jsonl", "out.jsonl", "--to", "openai")
    assert result.output.endswith("rows: 4 read = 4 kept + 0 left out; 4 written\n")
    contents = [record.messages[-1].content for record in records(tmp_path / "out.jsonl", "openai")]
    assert contents == ["c", "e", "b", "d\r\n"]


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
def test_text_and_turns_in_one_column_all_become_turns(
    run: Run, write_rows: Run, tmp_path: Path, kind: str
) -> None:
    expected = records(write_rows("rows.jsonl", PAIRS), "preference")
    assert run("convert", "rows.jsonl", f"out{kind}", "--to", "preference").exit_code == 0
    assert records(tmp_path / f"out{kind}", "preference") == expected
    first = next(read_rows(tmp_path / f"out{kind}"))
    assert isinstance(first, Row)
    assert first.fields["prompt"] == [{"role": "user", "content": "a"}]


def test_a_row_that_a_table_would_change_is_refused(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows("rows.jsonl", PAIRS)
    result = run("convert", "rows.jsonl", "out.csv", "--to", "preference")
    assert result.exit_code == 2
    assert "rows.jsonl line 2: .csv cannot hold this row as preference" in result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_row_that_the_form_cannot_express_stops_it(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows(
        "rows.jsonl", [{"messages": TURNS[:2]}, {"messages": [*TURNS, ANSWER]}, {"messages": TURNS[:2]}]
    )
    result = run("convert", "rows.jsonl", "out.jsonl", "--to", "question_answer")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: rows.jsonl line 2: data.format='question_answer' cannot hold")
    assert result.stderr.endswith("(leave such rows out with on_error=skip)\n")
    assert list(tmp_path.iterdir()) == [tmp_path / "rows.jsonl"]
    result = run("convert", "rows.jsonl", "out.jsonl", "--to", "question_answer", "on_error=skip")
    assert result.exit_code == 0
    assert "unwritable" in result.output
    assert "rows.jsonl line 2" in result.output
    assert result.output.endswith("rows: 3 read = 2 kept + 1 left out; 2 written\n")


def test_the_first_faulty_row_stops_it(run: Run, faulty: Path, tmp_path: Path) -> None:
    result = run("convert", "faulty.jsonl", "out.jsonl", "--to", "openai")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: faulty.jsonl line 2: ")
    assert not (tmp_path / "out.jsonl").exists()
    result = run("convert", "faulty.jsonl", "out.jsonl", "--to", "openai", "on_error=skip")
    assert result.output.endswith("rows: 6 read = 1 kept + 5 left out; 1 written\n")


def test_nothing_is_checked_or_changed_that_was_not_asked_for(
    run: Run, write_rows: Run, tmp_path: Path
) -> None:
    write_rows(
        "rows.jsonl", [{"prompt": " ", "completion": "mail a@b.org"}, {"prompt": "c", "completion": "d"}]
    )
    run("convert", "rows.jsonl", "plain.jsonl", "--to", "prompt_completion")
    assert (tmp_path / "plain.jsonl").read_text() == (tmp_path / "rows.jsonl").read_text()
    words = ["--to", "prompt_completion", "privacy.action=mask", "quality.min_chars=1"]
    result = run("convert", "rows.jsonl", "clean.jsonl", *words)
    assert result.output.endswith("rows: 2 read = 1 kept + 1 left out; 1 written\n")
    words.pop()
    run("convert", "rows.jsonl", "masked.jsonl", *words)
    assert json.loads((tmp_path / "masked.jsonl").read_text().splitlines()[0])["completion"] == "mail [EMAIL]"


def test_a_file_is_replaced_only_by_force(run: Run, write_rows: Run, tmp_path: Path) -> None:
    write_rows("rows.jsonl", ROWS_OF["text"])
    (tmp_path / "out.jsonl").write_text("old")
    result = run("convert", "rows.jsonl", "out.jsonl", "--to", "text")
    assert (result.exit_code, (tmp_path / "out.jsonl").read_text()) == (2, "old")
    assert "'out.jsonl' exists already" in result.stderr
    assert run("convert", "rows.jsonl", "out.jsonl", "--to", "text", "--force").exit_code == 0
    assert len(records(tmp_path / "out.jsonl", "text")) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rows.jsonl", "rows.jsonl", "--to", "text", "--force"], "'rows.jsonl' is also read"),
        ([".", "rows.jsonl", "--to", "text", "--force"], "'rows.jsonl' is also read"),
        (["rows.jsonl", "out.jsonl", "--to", "txt"], "--to 'txt' is unknown. Did you mean 'text'?"),
        (["rows.jsonl", "--to", "text"], "then OUT, the file to write"),
        (["nothing.jsonl", "out.jsonl", "--to", "text"], "PATH='nothing.jsonl' does not exist"),
        (["rows.jsonl", "out.jsonl", "--to", "text", "quality.min_chars=9"], "left out: 2 min_chars"),
        (["rows.jsonl", "out.jsonl", "--to", "text", "format=alpaca"], "the field 'instruction' is missing"),
    ],
)
def test_wrong_words_write_nothing(
    run: Run, write_rows: Run, tmp_path: Path, words: list[str], says: str
) -> None:
    write_rows("rows.jsonl", ROWS_OF["text"])
    result = run("convert", *words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "rows.jsonl"]


def test_fingerprints_tell_weights_apart_and_not_the_order_of_keys() -> None:
    one, other = (
        FORMATS["openai"].to_record({"messages": [USER, {**ANSWER, "weight": weight}]}) for weight in (0, 1)
    )
    assert fingerprint(record_to_json(one)) != fingerprint(record_to_json(other))
    assert fingerprint('{"a": 1, "b": 2}') == fingerprint('{"b": 2, "a": 1}')
