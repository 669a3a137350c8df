"""From a data file to checked records."""

import json
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from loralab.config.data import ColumnsConfig, DataConfig, PrivacyConfig, SourceConfig
from loralab.data.intake import Intake
from loralab.data.opening import check_forms, check_purpose, explain_form, open_source, refuse_faults
from loralab.data.records import Conversation, Message, PreferencePair, Record
from loralab.data.serialization import record_from_json
from loralab.data.source import list_sources
from loralab.errors import DataError

DATA_DIR = Path(__file__).parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA_DIR.is_dir(), reason="the folder ../shared/data is absent")

ASK = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(
    path: Path, form: str = "auto", columns: dict[str, str] | None = None, **fields: Any
) -> DataConfig:
    return DataConfig("file", str(path), format=form, columns=ColumnsConfig(**(columns or {})), **fields)


def load_records(config: DataConfig, *, for_training: bool = True) -> list[Record]:
    """Reads, converts and checks all rows as a run does, one source after another."""
    records: list[Record] = []
    for source in list_sources(config):
        form, rows = open_source(source, config.on_error)
        if for_training:
            check_purpose(source, form, config.preference)
        result = Intake(source, form, config, for_training)(list(rows))
        refuse_faults(source, result.tally, config.on_error)
        records += [record_from_json(row.record, row.file, row.row) for row in result.kept]
    return records


def load(path: Path, form: str = "auto", **columns: str) -> list[tuple[tuple[str, str], ...]]:
    return [
        tuple((message.role, message.content) for message in conversation.messages)
        for conversation in load_records(config(path, form, columns))
    ]


def fault(path: Path, form: str = "auto", **columns: str) -> str:
    with pytest.raises(DataError) as error:
        load_records(config(path, form, columns))
    return str(error.value).replace(str(path), path.name)


def test_source_and_line_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('\n{"text": "a"}\n\n{"text": "b"}\n')
    assert load_records(config(path)) == [
        Conversation((Message("text", "a"),), str(path), 2),
        Conversation((Message("text", "b"),), str(path), 4),
    ]


def test_mapped_prompt_and_response(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "a", "answer": "b", "tone": "s"})
    assert load(path, prompt="question", response="answer") == [(("user", "a"), ("assistant", "b"))]
    expected = [(("system", "s"), ("user", "a"), ("assistant", "b"))]
    assert load(path, prompt="question", response="answer", system="tone") == expected
    assert load(path, "alpaca", prompt="question", response="answer", system="tone") == expected


def test_mapped_column_replaces_the_field_of_that_name(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "b", "response": "a", "completion": "c"})
    assert load(path, prompt="response", response="prompt") == [(("user", "a"), ("assistant", "b"))]


def test_unmapped_field_does_not_compete_with_a_mapped_one(tmp_path: Path) -> None:
    path = write(tmp_path, {"q": "a", "a": "b", "response": "old"})
    assert load(path, prompt="q", response="a") == [(("user", "a"), ("assistant", "b"))]


def test_field_is_read_only_for_the_column_it_is_mapped_to(tmp_path: Path) -> None:
    path = write(tmp_path, {"response": "a", "completion": "b"})
    assert load(path, prompt="response") == [(("user", "a"), ("assistant", "b"))]


def test_mapped_system_may_be_absent_in_later_rows(tmp_path: Path) -> None:
    row = {"prompt": "a", "response": "b"}
    path = write(tmp_path, {**row, "tone": "s"}, row)
    assert [len(turns) for turns in load(path, system="tone")] == [3, 2]


def test_mapped_messages_of_either_turn_shape(tmp_path: Path) -> None:
    expected = [(("user", "a"), ("assistant", "b"))]
    assert load(write(tmp_path, {"dialog": [ASK, ANSWER]}), messages="dialog") == expected
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    assert load(write(tmp_path, {"dialog": turns}), messages="dialog") == expected


def test_mapped_text(tmp_path: Path) -> None:
    assert load(write(tmp_path, {"body": "a", "text": "old"}), text="body") == [(("text", "a"),)]


def test_given_form_settles_an_ambiguous_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"instruction": "a", "output": "b", "text": "c"})
    assert load(path, "text") == [(("text", "c"),)]
    assert load(path, "alpaca") == [(("user", "a"), ("assistant", "b"))]
    assert fault(path).startswith("data.path='x.jsonl': data.format='auto': 2 forms fit: alpaca")


def test_unknown_form_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    assert fault(tmp_path / "absent.json", "alpacca") == (
        "data.format='alpacca' is unknown. Did you mean 'alpaca'? Known: auto, alpaca, sharegpt, openai, "
        "prompt_completion, question_answer, prompts, text, preference, sharegpt_preference, unpaired."
    )


def test_missing_mapped_column_names_file_fields_and_close_match(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "a", "answer": "b"})
    assert fault(path, "prompt_completion", prompt="questoin", response="answer") == (
        "data.path='x.jsonl': data.columns.prompt='questoin' is not a field of the first row. "
        "Did you mean 'question'? Fields: question, answer."
    )


def test_column_that_the_form_does_not_take(tmp_path: Path) -> None:
    assert fault(write(tmp_path, {"body": "a"}), "alpaca", text="body") == (
        "data.path='x.jsonl': data.format='alpaca' does not take all of data.columns.text=body; "
        "it takes: prompt, response, system."
    )


def test_fault_in_a_mapped_column_names_the_column(tmp_path: Path) -> None:
    path = write(tmp_path, {"q": "a", "a": "b"}, {"q": "a", "a": None})
    assert fault(path, prompt="q", response="a") == (
        "data.path='x.jsonl' line 2: the field 'completion' holds null; a string or a list of turns is "
        "needed (data.columns.response='a')"
    )


def test_one_faulty_row_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"messages": [ASK, ANSWER]}, {"messages": [ASK, ANSWER, ASK]})
    assert fault(path) == (
        "data.path='x.jsonl' line 2: the last turn is of role 'user'; end the row with the assistant's answer"
    )


def test_faulty_row_of_a_json_list_is_counted_as_a_row(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"text": "a"}, {"text": " "}], indent=2))
    assert fault(path) == "data.path='x.json' row 2: the text is empty; fill it in or remove the row"


def test_faulty_rows_are_shown_together_in_file_order(tmp_path: Path) -> None:
    good = {"instruction": "a", "output": "b"}
    path = write(tmp_path, good, {**good, "output": ""}, good, {**good, "output": None})
    assert fault(path) == (
        "data.path='x.jsonl': 2 of 4 rows cannot be used: "
        "line 2: the assistant's text in turn 2 is empty; fill it in or remove the row; "
        "line 4: the field 'output' holds null; a string is needed"
    )


def test_only_five_faulty_rows_are_shown(tmp_path: Path) -> None:
    faulty = [*[{"text": ""}] * 3, {"text": 5}, *[{"text": ""}] * 3]
    assert fault(write(tmp_path, {"text": "a"}, *faulty), "text") == (
        "data.path='x.jsonl': 7 of 8 rows cannot be used: line 2: the text is empty; fill it in or "
        "remove the row (also line 3, line 4, line 6); line 5: the field 'text' holds a number; a string is "
        "needed; and 2 more"
    )


def test_reasons_that_are_sentences_are_listed_without_their_full_stops(tmp_path: Path) -> None:
    good = {"prompt": "a", "completion": "b"}
    path = write(tmp_path, good, {"prompt": "a"}, {"completion": "b"})
    assert fault(path, "prompt_completion") == (
        "data.path='x.jsonl': 2 of 3 rows cannot be used: line 2: the field 'completion' is missing; "
        "line 3: the field 'prompt' is missing"
    )


def test_file_without_assistant_turns_has_its_own_message(tmp_path: Path) -> None:
    message = fault(write(tmp_path, {"messages": [ASK]}, {"messages": [ASK, ASK]}))
    assert message.startswith("data.path='x.jsonl': no assistant turns: nothing to train on.")
    assert "data.columns.response=<field>" in message


def test_faulty_row_is_shown_rather_than_the_lack_of_assistant_turns(tmp_path: Path) -> None:
    path = write(tmp_path, {"messages": [ASK]}, {"messages": [ASK, {"role": "asistant", "content": "b"}]})
    message = fault(path)
    assert message.startswith(
        "data.path='x.jsonl': 2 of 2 rows cannot be used: line 1: there is no assistant"
    )
    assert "line 2: 'messages' turn 2: role='asistant' is unknown. Did you mean 'assistant'?" in message


CUT = '{"prompt": "a", "comp'
PAIR = '{"prompt": "a", "completion": "b"}'
ALPACA = '{"instruction": "a", "output": "b"}'
BOTH = '{"text": "a", "prompt": "a", "completion": "b"}'


def write_lines(folder: Path, *lines: str) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize(("lines", "begins"), [
    ((PAIR, CUT, PAIR, ALPACA), "data.path='x.jsonl' line 2: broken JSON at column 17: "),
    ((CUT, '{"foo": 1}'), "data.path='x.jsonl' line 1: broken JSON"),
    ((BOTH, CUT), "data.path='x.jsonl' line 2: broken JSON"),
    ((PAIR, ALPACA, CUT), "data.path='x.jsonl': data.format='auto': line 2 has the fields"),
], ids=["before-another-form", "before-no-form", "between-two-forms", "after-another-form"])  # fmt: skip
def test_the_first_fault_of_a_file_without_one_form_is_named(
    lines: tuple[str, ...], begins: str, tmp_path: Path
) -> None:
    message = fault(write_lines(tmp_path, *lines))
    assert message.startswith(begins)
    assert ("`loralab data validate` lists every fault" in message) == ("broken JSON" in begins)


def test_a_broken_row_does_not_hide_the_form_where_it_is_skipped(tmp_path: Path) -> None:
    path = write_lines(tmp_path, PAIR, CUT, ALPACA, PAIR)
    assert len(load_records(config(path, on_error="skip"))) == 2
    with pytest.raises(DataError, match=r"data\.format='auto': 2 forms fit"):
        load_records(config(write_lines(tmp_path, BOTH, CUT), on_error="skip"))


def test_half_of_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "\\ud83d\\ude00"}\n{"text": "\\ud83d"}\n')
    assert fault(path) == (
        "data.path='x.jsonl' line 2: turn 1 holds half of a surrogate pair, which no tokenizer can encode; "
        "remove it"
    )


@needs_data
def test_every_public_file_is_accounted_for() -> None:
    found = {}
    for path in sorted(DATA_DIR.glob("*.json*")):
        given = config(path, privacy=PrivacyConfig(action="none"))
        (source,) = list_sources(given)
        form, rows = open_source(source)
        assert form is not None
        tally = Intake(source, form, given, for_training=False)(list(rows)).tally
        assert tally.rows == tally.kept + sum(removals.count for removals in tally.removed.values())
        found[path.name] = (form.name, tally.rows, tally.kept)
    assert found == {
        "alpaca_en_demo.json": ("alpaca", 999, 999),
        "dpo_en_demo.json": ("sharegpt_preference", 300, 300),
        "gsm8k_test.jsonl": ("question_answer", 1319, 1319),
        "gsm8k_train.jsonl": ("question_answer", 7473, 7473),
        "ifeval_prompts.jsonl": ("prompts", 541, 541),
        "mt_bench_questions.jsonl": ("prompts", 80, 80),
        "v1_sft_demo.jsonl": ("openai", 500, 500),
    }


@needs_data
def test_alpaca_demo_loads() -> None:
    conversations = load(DATA_DIR / "alpaca_en_demo.json")
    assert len(conversations) == 999
    assert conversations[0][0] == ("user", "Describe a process of making crepes.")
    assert sum("\n\n" in turns[0][1] for turns in conversations) >= 412
    assert {tuple(role for role, _ in turns) for turns in conversations} == {("user", "assistant")}


@needs_data
def test_gsm8k_loads_with_mapped_columns() -> None:
    conversations = load(DATA_DIR / "gsm8k_train.jsonl", prompt="question", response="answer")
    assert len(conversations) == 7473
    assert conversations[0][0][1].startswith("Natalia sold clips to 48 of her friends in April")
    assert all("####" in turns[1][1] for turns in conversations)


@needs_data
def test_gsm8k_is_detected() -> None:
    path = DATA_DIR / "gsm8k_train.jsonl"
    assert load(path) == load(path, prompt="question", response="answer")


@needs_data
@pytest.mark.parametrize(("name", "rows"), [("ifeval_prompts.jsonl", 541), ("mt_bench_questions.jsonl", 80)])
def test_prompts_load_but_cannot_be_trained_on(name: str, rows: int) -> None:
    assert len(load_records(config(DATA_DIR / name), for_training=False)) == rows
    assert "no assistant turns: nothing to train on" in fault(DATA_DIR / name)


@needs_data
def test_preference_pairs_load_and_give_their_preferred_answers() -> None:
    path = DATA_DIR / "dpo_en_demo.json"
    pairs = load_records(config(path), for_training=False)
    assert len(pairs) == 300
    assert all(isinstance(pair, PreferencePair) for pair in pairs)
    chosen = load_records(config(path, preference="chosen"))
    assert [record.messages[-1] for record in chosen] == [pair.messages[-1] for pair in pairs]


@needs_data
def test_typed_parts_demo_loads() -> None:
    conversations = load(DATA_DIR / "v1_sft_demo.jsonl")
    assert len(conversations) == 500
    answer = "Hello! I am {{name}}, an AI assistant developed by {{author}}. How can I assist you today?"
    assert conversations[0] == (("user", "hi"), ("assistant", answer))


def test_no_row_beyond_the_limit_is_looked_at(tmp_path: Path) -> None:
    # The third row has another form, which would be refused were it looked at.
    path = write(tmp_path, {"text": "a"}, {"text": "b"}, {"prompt": "c", "completion": "d"})
    (source,) = list_sources(config(path))
    form, rows = open_source(source, limit=2)
    name, _, all_rows = explain_form(source, form, rows)
    assert name == "text"
    assert [row.place for _, row in all_rows] == ["line 1", "line 2"]
    with pytest.raises(DataError, match="line 3"):
        open_source(source, limit=3)


def test_what_first_rows_lack_is_said_of_all_sources_at_once(tmp_path: Path) -> None:
    names = {
        "asks.jsonl": {"ask": "a", "answer": "b"},
        "prompts.jsonl": {"prompt": "a"},
        "good.jsonl": {"text": "a"},
    }
    for name, row in names.items():
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    asks, prompts, good = (str(tmp_path / name) for name in names)
    wrong = SourceConfig(path=asks, columns=ColumnsConfig(prompt="asked"))
    several = DataConfig(
        "file", sources=[wrong, SourceConfig(path=good)], val_path=prompts, test_path="hub:a/b"
    )
    with pytest.raises(DataError) as refused:
        check_forms(several)
    assert str(refused.value) == (
        f"data.sources[0].path={asks!r}: data.columns.prompt='asked' is not a field of the first row. "
        "Did you mean 'ask'? Fields: ask, answer.\n"
        f"  data.val_path={prompts!r}: no assistant turns: nothing to train on. Give rows with answers, or "
        "map the answers with data.columns.response=<field>."
    )
    check_forms(DataConfig("file", path=good))
    check_forms(DataConfig())


def test_forms_are_checked_without_torch_and_transformers() -> None:
    program = "import sys; import loralab.data.opening; print({'torch', 'transformers'} & set(sys.modules))"
    result = run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "set()\n"
