"""What the account says of each source: where it ends, its form and what was left out after the split."""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from loralab.config.data import (
    ColumnsConfig,
    ContaminationConfig,
    DataConfig,
    PrivacyConfig,
    PromptTemplateConfig,
    SourceConfig,
)
from loralab.data import cache
from loralab.data.prepare import PreparedData, chunks_by_source, prepare_data
from loralab.data.report import SourceReport

SENTENCE = "the quick brown fox jumps over the lazy dog and then runs far away home"


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pairs(path: Path, count: int, word: str) -> str:
    return write(path, *({"prompt": f"{word} {i}", "completion": f"{word} {i}"} for i in range(count)))


def prepare(tokenizer: PreTrainedTokenizerBase, **fields: Any) -> PreparedData:
    return prepare_data(DataConfig(**{"name": "file", "cache": False, **fields}), tokenizer, 0)


def later(source: SourceReport) -> dict[str, int]:
    return {check: removals.count for check, removals in source.later.removed.items()}


def test_rows_left_out_after_the_split_are_counted_by_source(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    first = pairs(tmp_path / "first.jsonl", 30, "one")
    long = {"prompt": "long", "completion": " z" * 90}
    copied = {"prompt": f"Say: {SENTENCE}!", "completion": "no"}
    short = [{"prompt": f"two {i}", "completion": "x"} for i in range(20)]
    second = write(tmp_path / "second.jsonl", *short, long, copied)
    test_path = write(tmp_path / "test.jsonl", {"prompt": f"Repeat {SENTENCE}", "completion": "yes"})
    data = prepare(
        tokenizer,
        sources=[SourceConfig(path=first), SourceConfig(path=second)],
        val_path=pairs(tmp_path / "val.jsonl", 2, "held"),
        test_path=test_path,
        max_length=120,
        contamination=ContaminationConfig("drop"),
    )
    one, two, val, test = data.report.sources
    assert [later(source) for source in (one, two, val, test)] == [
        {},
        {"over_length": 1, "contamination": 1},
        {},
        {},
    ]
    assert two.splits["train"].rows == 22
    assert list(val.splits) == ["val"]
    # Every row that was read is an example or is counted as left out.
    for number, source in enumerate(data.report.sources):
        stores = (data.train.examples, data.val.examples, data.test.examples)
        examples = sum(example.source == number for store in stores for example in store)
        assert source.tally.kept - source.later.num_removed == examples
    assert one.ledger is not None
    assert two.ledger is not None
    assert (two.ledger.rows, two.ledger.kept, two.ledger.dropped) == (21, 20, 1)
    # The long answer is 90 times a space and a letter, and the end of the turn.
    assert two.ledger.supervised_tokens_lost >= 91
    assert one.ledger.supervised_tokens + two.ledger.supervised_tokens == (
        data.train.ledger.supervised_tokens
    )


def test_benchmarks_are_listed_with_their_rows(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = pairs(tmp_path / "rows.jsonl", 20, "one")
    benchmark = write(tmp_path / "exam.jsonl", *({"question": f"{i}?", "answer": "yes"} for i in range(7)))
    data = prepare(tokenizer, path=path, contamination=ContaminationConfig("report", benchmarks=[benchmark]))
    (account,) = data.report.benchmarks
    assert (account.name, account.part, account.form) == (benchmark, "benchmark", "question_answer")
    assert (account.tally.rows, account.tally.kept) == (7, 7)
    unread = ContaminationConfig("none", benchmarks=[benchmark])
    assert prepare(tokenizer, path=path, contamination=unread).report.benchmarks == []


@pytest.mark.parametrize(("limit", "noted"), [(None, None), (10, 10), (20, 20), (21, None)])
def test_the_limit_is_noted_where_it_ended_the_reading(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, limit: int | None, noted: int | None
) -> None:
    path = pairs(tmp_path / "rows.jsonl", 20, "one")
    given = pairs(tmp_path / "test.jsonl", 20, "held")
    data = prepare(tokenizer, path=path, test_path=given, max_examples=limit)
    train, test = data.report.sources
    assert (train.limit, test.limit) == (noted, None)
    assert test.tally.rows == 20


@pytest.mark.parametrize(
    ("row", "options", "form", "reason"),
    [
        (
            {"prompt": "{}", "completion": "b", "id": 1},
            {},
            "prompt_completion",
            "found: has 'prompt' and 'completion' or 'response'; "
            "fields of the first row: prompt, completion, id",
        ),
        (
            {"frage": "{}", "antwort": "b"},
            {"columns": ColumnsConfig(prompt="frage", response="antwort")},
            "prompt_completion",
            "found: has 'prompt' and 'completion' or 'response'; data.columns.prompt=frage, "
            "data.columns.response=antwort; fields of the first row: frage, antwort",
        ),
        ({"text": "{}"}, {"format": "text"}, "text", "as given; fields of the first row: text"),
        (
            {"title": "{}"},
            {"prompt_template": PromptTemplateConfig(user="{{ title }}", assistant="b")},
            "prompt_template",
            "data.prompt_template builds the turns; fields of the first row: title",
        ),
        (
            {"text": "{}", **{f"{i:02}{'x' * 50}": 1 for i in range(13)}},
            {},
            "text",
            "found: has 'text'; fields of the first row: text, "
            + ", ".join(f"{i:02}{'x' * 38}…" for i in range(11))
            + " and 2 more",
        ),
    ],
)
def test_the_form_says_how_it_was_found(
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    row: dict[str, Any],
    options: dict[str, Any],
    form: str,
    reason: str,
) -> None:
    rows = [{key: f"a {i}" if value == "{}" else value for key, value in row.items()} for i in range(6)]
    data = prepare(tokenizer, path=write(tmp_path / "rows.jsonl", *rows), **options)
    (source,) = data.report.sources
    assert (source.form, source.reason) == (form, reason)


@pytest.mark.parametrize("action", ["report", "mask"])
def test_no_address_is_quoted_of_any_row(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, action: str
) -> None:
    rows = [{"prompt": f"Ask a{i}@example.org", "completion": f"yes {i}"} for i in range(20)]
    long = {"prompt": "Ask b@example.org", "completion": " z" * 90}
    path = write(tmp_path / "rows.jsonl", *rows, rows[3], {"prompt": "c@example.org", "completion": ""}, long)
    options = {"on_error": "skip", "max_length": 120, "max_dropped": 0.5}
    report = prepare(tokenizer, path=path, privacy=PrivacyConfig(action=action), **options).report
    (source,) = report.sources
    assert set(source.tally.removed) == {"duplicate", "invalid"}
    assert later(source) == {"over_length": 1}
    assert "@example" not in json.dumps(report.to_account())
    # The row without an answer is refused before anybody looks for addresses in it.
    assert source.private_rows == 22


def test_chunks_hold_one_source_each_and_keep_the_order() -> None:
    sources = np.array([0] * 300 + [1] * 10 + [0], np.int16)
    numbers = np.array([*range(5, 300), *range(300, 310), 310], np.int64)
    chunks = chunks_by_source(numbers, sources)
    assert [len(chunk) for chunk in chunks] == [256, 39, 10, 1]
    assert np.concatenate(chunks).tolist() == numbers.tolist()
    assert chunks_by_source(numbers[:0], sources) == []


def test_a_new_preparation_makes_room_and_a_used_one_stays(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MAX_FOLDERS", 2)
    # Whatever was used before now is old.
    monkeypatch.setattr(cache, "DAY_S", -1)
    path = pairs(tmp_path / "rows.jsonl", 20, "one")

    def folder(max_length: int) -> Path:
        return prepare(tokenizer, path=path, cache=True, max_length=max_length).train.examples.path.parent

    first, second = folder(201), folder(202)
    for made, age in ((first, 200), (second, 100)):
        for each in (*made.iterdir(), made):
            os.utime(each, (time.time() - age, time.time() - age))
    assert folder(201) == first  # used again: now the second was not used for longest
    third = folder(203)
    assert [each.is_dir() for each in (first, second, third)] == [True, False, True]


def test_an_account_is_the_same_when_it_is_found_again(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    path = write(
        tmp_path / "rows.jsonl", *({"prompt": f"Ask a{i}@example.org", "completion": "b"} for i in range(20))
    )
    first, again = (prepare(tokenizer, path=path, cache=True, max_examples=15) for _ in range(2))
    assert dataclasses.asdict(again.report) == dataclasses.asdict(first.report)
    assert again.report.sources[0].private_examples["email"][4].place == "line 5"
