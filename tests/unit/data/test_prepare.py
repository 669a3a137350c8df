"""From files to checked examples: which rows land where, and what a fault looks like."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from loralab.config.schema import ColumnsConfig, DataConfig
from loralab.data.masking import Example
from loralab.data.prepare import PreparedData, prepare_data
from loralab.errors import DataError

LONG = 100_000


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(path: Path, count: int, word: str = "answer") -> str:
    return write(path, *({"prompt": f"Count {i}", "completion": f"{word} {i}"} for i in range(count)))


def prepare(tokenizer: PreTrainedTokenizerBase, seed: int = 0, **fields: Any) -> PreparedData:
    return prepare_data(DataConfig(name="file", **fields), tokenizer, seed)


def fault(tokenizer: PreTrainedTokenizerBase, **fields: Any) -> str:
    with pytest.raises(DataError) as error:
        prepare(tokenizer, **fields)
    return str(error.value)


def learned(tokenizer: PreTrainedTokenizerBase, example: Example) -> str:
    return str(tokenizer.decode([label for label in example.labels if label != -100]))


def answers(data: PreparedData, split: str) -> list[str]:
    return [example.conversation.response for example in getattr(data, split).examples]


def counts(data: PreparedData) -> tuple[int, int, int]:
    return len(data.train.examples), len(data.val.examples), len(data.test.examples)


def test_embedded_task_has_its_own_splits(tokenizer: PreTrainedTokenizerBase) -> None:
    data = prepare_data(DataConfig(name="calls", max_length=LONG), tokenizer, seed=0)
    assert counts(data) == (800, 100, 200)
    assert [(Path(file.path).name, file.rows) for file in data.files] == [
        ("train.jsonl", 800),
        ("validation.jsonl", 100),
        ("test.jsonl", 200),
    ]
    for example in data.train.examples + data.val.examples + data.test.examples:
        assert learned(tokenizer, example) == example.conversation.response + "<|im_end|>"
        json.loads(example.conversation.response)


def test_embedded_task_can_be_shortened_without_touching_the_held_out_rows(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    whole = prepare_data(DataConfig(name="calls", max_length=LONG), tokenizer, seed=0)
    short = prepare_data(DataConfig(name="calls", max_length=LONG, max_examples=7), tokenizer, seed=0)
    assert short.train.examples == whole.train.examples[:7]
    assert (short.val, short.test) == (whole.val, whole.test)


def test_fractions_are_held_out_of_one_file(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = numbered(tmp_path / "rows.jsonl", 20)
    data = prepare(tokenizer, path=path, val_fraction=0.1, test_fraction=0.2)
    assert counts(data) == (14, 2, 4)
    everything = [answer for split in ("train", "val", "test") for answer in answers(data, split)]
    assert sorted(everything) == sorted(f"answer {i}" for i in range(20))
    assert [file.path for file in data.files] == [path]


def test_seed_chooses_the_held_out_rows(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = numbered(tmp_path / "rows.jsonl", 40)
    held_out = [answers(prepare(tokenizer, seed, path=path), "test") for seed in (0, 0, 1, 2)]
    assert held_out[0] == held_out[1]
    assert len(set(map(tuple, held_out))) == 3


def test_given_validation_file_is_used_whole_and_only_the_test_is_held_out(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = numbered(tmp_path / "rows.jsonl", 20)
    val_path = numbered(tmp_path / "val.jsonl", 3, "held")
    data = prepare(tokenizer, path=path, val_path=val_path, test_fraction=0.2)
    assert counts(data) == (16, 3, 4)
    assert answers(data, "val") == ["held 0", "held 1", "held 2"]
    assert sorted(answers(data, "train") + answers(data, "test")) == sorted(f"answer {i}" for i in range(20))


def test_given_test_file_is_used_whole_and_only_validation_is_held_out(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = numbered(tmp_path / "rows.jsonl", 20)
    test_path = numbered(tmp_path / "test.jsonl", 2, "exam")
    data = prepare(tokenizer, path=path, test_path=test_path, val_fraction=0.2)
    assert counts(data) == (16, 4, 2)
    assert answers(data, "test") == ["exam 0", "exam 1"]
    assert sorted(answers(data, "train") + answers(data, "val")) == sorted(f"answer {i}" for i in range(20))


def test_three_given_files_hold_nothing_out(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    # One training row: nothing has to be held out of it.
    paths = {
        "path": numbered(tmp_path / "rows.jsonl", 1),
        "val_path": numbered(tmp_path / "val.jsonl", 2, "held"),
        "test_path": numbered(tmp_path / "test.jsonl", 3, "exam"),
    }
    data = prepare(tokenizer, **paths)
    assert counts(data) == (1, 2, 3)
    assert [(file.path, file.rows) for file in data.files] == [
        (paths["path"], 1),
        (paths["val_path"], 2),
        (paths["test_path"], 3),
    ]


def test_max_examples_takes_rows_from_the_front_before_holding_out(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = numbered(tmp_path / "rows.jsonl", 20)
    data = prepare(tokenizer, path=path, max_examples=10, val_fraction=0.1, test_fraction=0.2)
    assert counts(data) == (7, 1, 2)
    everything = [answer for split in ("train", "val", "test") for answer in answers(data, split)]
    assert sorted(everything) == [f"answer {i}" for i in range(10)]
    assert data.files[0].rows == 20


def test_max_examples_leaves_given_files_alone(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    data = prepare(
        tokenizer,
        path=numbered(tmp_path / "rows.jsonl", 9),
        val_path=numbered(tmp_path / "val.jsonl", 5),
        test_path=numbered(tmp_path / "test.jsonl", 6),
        max_examples=2,
    )
    assert counts(data) == (2, 5, 6)


def test_files_are_pinned_by_the_hash_of_their_bytes(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n')
    data = prepare(tokenizer, path=str(path))
    # As the command sha256sum prints it.
    expected = "8419a01125c22ddbf997fe6d22a28dafbbe1107e7f26e75d1511d1e5613dfbbe"
    assert data.files[0].sha256 == expected


def test_ledger_is_kept_per_split(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    data = prepare(
        tokenizer,
        path=numbered(tmp_path / "rows.jsonl", 4),
        val_path=write(tmp_path / "val.jsonl", {"text": "ab"}, {"text": "a" * 50}),
        test_path=write(tmp_path / "test.jsonl", {"text": "a"}),
        max_length=40,
        max_dropped=0.5,
    )
    val = data.val.ledger
    # A repeated letter does not merge, so `ab` is two tokens and an end, the first of them unpredicted.
    assert (val.rows, val.kept, val.dropped, val.tokens, val.supervised_tokens) == (2, 1, 1, 3, 2)
    assert val.supervised_tokens_lost == 50
    assert (data.train.ledger.rows, data.train.ledger.dropped) == (4, 0)
    assert len(data.val.examples) == 1


def test_rows_over_the_length_are_refused_by_name(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"text": "a"}, {"text": "b" * 60}, {"text": "c"})
    given = {"val_path": path, "test_path": path}
    assert fault(tokenizer, path=path, max_length=20, **given) == (
        f"1 of 3 train rows are longer than data.max_length=20 tokens (the longest has 61): {path} row 2. "
        "Use data.max_length=61, or allow the loss with data.max_dropped=0.334."
    )


def test_row_that_the_template_refuses_is_named(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = (
        "{% if messages | length > 2 %}"
        "{{ raise_exception('One exchange only') }}{% endif %}" + tokenizer.chat_template
    )
    path = write(
        tmp_path / "rows.jsonl",
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"},
        ]},
    )  # fmt: skip
    assert fault(changed, path=path, val_path=path, test_path=path) == (
        f"{path} row 2: the chat template refuses these turns: One exchange only"
    )


def test_row_without_an_answer_is_named(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": ""}
    )
    message = fault(tokenizer, path=path)
    assert path in message
    assert "line 2" in message


def test_supervision_gate_is_closed_by_a_bad_row(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    path = write(tmp_path / "rows.jsonl", *({"text": text} for text in ("one", "two", "three")))
    message = fault(endless, path=path, val_path=path, test_path=path)
    assert message.startswith("3 of 3 train rows do not learn their end-of-turn token: ")
    assert f"{path} row 1" in message


def test_holding_out_everything_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = numbered(tmp_path / "rows.jsonl", 4)
    assert fault(tokenizer, path=path, val_fraction=0.49, test_fraction=0.49) == (
        "no training rows are left after holding out validation and test rows: add rows."
    )


def test_too_few_rows_to_hold_out_are_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = numbered(tmp_path / "rows.jsonl", 2)
    assert fault(tokenizer, path=path).startswith("2 usable rows are too few to hold out")


def test_columns_map_the_user_s_own_field_names(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"frage": "a", "antwort": "b", "stil": "kurz"})
    columns = ColumnsConfig(prompt="frage", response="antwort", system="stil")
    data = prepare(tokenizer, path=path, val_path=path, test_path=path, columns=columns)
    assert tokenizer.decode(data.val.examples[0].input_ids) == (
        "<|im_start|>system\nkurz<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    )


def test_gsm8k_with_mapped_columns(tokenizer: PreTrainedTokenizerBase, shared_data: Path) -> None:
    train, test = shared_data / "gsm8k_train.jsonl", shared_data / "gsm8k_test.jsonl"
    data = prepare(
        tokenizer,
        path=str(train),
        test_path=str(test),
        columns=ColumnsConfig(prompt="question", response="answer"),
        max_examples=200,
        max_length=LONG,
    )
    assert counts(data) == (190, 10, 1319)
    assert [file.rows for file in data.files] == [7473, 1319]
    rows = [json.loads(line) for line in test.read_text().splitlines()]
    for row, example in zip(rows, data.test.examples, strict=True):
        assert tokenizer.decode(example.input_ids) == (
            f"<|im_start|>user\n{row['question']}<|im_end|>\n"
            f"<|im_start|>assistant\n{row['answer']}<|im_end|>\n"
        )
        assert learned(tokenizer, example) == row["answer"] + "<|im_end|>"


def test_alpaca_rows_teach_their_output(tokenizer: PreTrainedTokenizerBase, shared_data: Path) -> None:
    path = shared_data / "alpaca_en_demo.json"
    data = prepare(tokenizer, path=str(path), max_length=LONG)
    assert counts(data) == (899, 50, 50)
    rows = json.loads(path.read_text())
    for example in data.train.examples + data.val.examples + data.test.examples:
        row = rows[example.conversation.row - 1]
        assert learned(tokenizer, example) == row["output"] + "<|im_end|>"
        prompt = tokenizer.decode(example.input_ids).rpartition("<|im_start|>assistant\n")[0]
        assert row["instruction"] in prompt
        assert row["input"] in prompt
