"""From files to checked examples: which rows land where, and what a fault looks like."""

import copy
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from loralab.config.data import (
    ColumnsConfig,
    ContaminationConfig,
    DataConfig,
    DedupConfig,
    PrivacyConfig,
    PromptTemplateConfig,
    QualityConfig,
    SourceConfig,
    SplitConfig,
)
from loralab.data.masking import Example
from loralab.data.prepare import PreparedData, _move_into_place, prepare_data
from loralab.errors import DataError

LONG = 100_000


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(path: Path, count: int, word: str = "answer") -> str:
    return write(path, *({"prompt": f"Count {i}", "completion": f"{word} {i}"} for i in range(count)))


def prepare(tokenizer: PreTrainedTokenizerBase, seed: int = 0, **fields: Any) -> PreparedData:
    return prepare_data(DataConfig(**{"name": "file", "cache": False, **fields}), tokenizer, seed)


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
    data = prepare_data(DataConfig(name="calls", max_length=LONG, cache=False), tokenizer, seed=0)
    assert counts(data) == (800, 100, 200)
    assert [Path(file.path).name for file in data.files] == ["train.jsonl", "validation.jsonl", "test.jsonl"]
    assert [source.tally.rows for source in data.report.sources] == [800, 100, 200]
    for example in [*data.train.examples, *data.val.examples, *data.test.examples]:
        assert learned(tokenizer, example) == example.conversation.response + "<|im_end|>"
        json.loads(example.conversation.response)


def test_embedded_task_can_be_shortened_without_touching_the_held_out_rows(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    whole = prepare_data(DataConfig(name="calls", max_length=LONG, cache=False), tokenizer, seed=0)
    short = prepare_data(
        DataConfig(name="calls", max_length=LONG, max_examples=7, cache=False), tokenizer, seed=0
    )
    assert list(short.train.examples) == whole.train.examples[:7]
    for split in ("val", "test"):
        assert list(getattr(short, split).examples) == list(getattr(whole, split).examples)
        assert getattr(short, split).ledger == getattr(whole, split).ledger


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
    assert [file.path for file in data.files] == [paths["path"], paths["val_path"], paths["test_path"]]


def test_max_examples_takes_rows_from_the_front_before_holding_out(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = numbered(tmp_path / "rows.jsonl", 20)
    data = prepare(tokenizer, path=path, max_examples=10, val_fraction=0.1, test_fraction=0.2)
    assert counts(data) == (7, 1, 2)
    everything = [answer for split in ("train", "val", "test") for answer in answers(data, split)]
    assert sorted(everything) == [f"answer {i}" for i in range(10)]
    assert data.report.sources[0].tally.rows == 10


def test_max_examples_leaves_given_files_alone(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    data = prepare(
        tokenizer,
        path=numbered(tmp_path / "rows.jsonl", 9),
        val_path=numbered(tmp_path / "val.jsonl", 5, "held"),
        test_path=numbered(tmp_path / "test.jsonl", 6, "exam"),
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
    given = {"val_path": path, "test_path": path, "dedup": DedupConfig(exact=False)}
    message = fault(tokenizer, path=path, max_length=20, **given)
    assert message.startswith(
        f"1 of 3 train rows are longer than data.max_length=20 tokens (the longest has 61): {path} line 2. "
        "Use data.max_length=61, or "
    )
    assert message.endswith("or allow the loss with data.max_dropped=0.334.")


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
    kept = DedupConfig(exact=False)
    assert fault(changed, path=path, val_path=path, test_path=path, dedup=kept) == (
        f"{path} line 2: the chat template refuses these turns: One exchange only. Mend the rows, or leave "
        "such rows out with data.on_error=skip."
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
    kept = DedupConfig(exact=False)
    message = fault(endless, path=path, val_path=path, test_path=path, dedup=kept)
    assert message.startswith("3 of 3 train rows do not learn their end-of-turn token: ")
    assert f"{path} line 1" in message


def test_too_few_rows_to_hold_out_are_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = numbered(tmp_path / "rows.jsonl", 2)
    assert fault(tokenizer, path=path).startswith("2 usable rows are too few to hold out")


def test_columns_map_the_user_s_own_field_names(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"frage": "a", "antwort": "b", "stil": "kurz"})
    columns = ColumnsConfig(prompt="frage", response="antwort", system="stil")
    kept = DedupConfig(exact=False)
    data = prepare(tokenizer, path=path, val_path=path, test_path=path, columns=columns, dedup=kept)
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
    assert [source.tally.rows for source in data.report.sources] == [200, 1319]
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
    # 14 of the 999 rows say what an earlier one says.
    assert counts(data) == (887, 49, 49)
    assert removed(data) == {"duplicate": 14}
    rows = json.loads(path.read_text())
    for example in [*data.train.examples, *data.val.examples, *data.test.examples]:
        row = rows[example.conversation.row - 1]
        assert learned(tokenizer, example) == row["output"] + "<|im_end|>"
        prompt = tokenizer.decode(example.input_ids).rpartition("<|im_start|>assistant\n")[0]
        assert row["instruction"] in prompt
        assert row["input"] in prompt


def removed(data: PreparedData) -> dict[str, int]:
    tallies = [*(source.tally for source in data.report.sources), *data.report.splits.values()]
    return {check: each.count for tally in tallies for check, each in tally.removed.items()}


def test_duplicates_of_held_out_rows_leave_the_training_rows(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = [{"prompt": f"Count {i}", "completion": f"answer {i}"} for i in range(8)]
    path = write(tmp_path / "rows.jsonl", *rows, rows[0], rows[5])
    test_path = write(tmp_path / "test.jsonl", rows[3], rows[4])
    val_path = write(tmp_path / "val.jsonl", rows[4], rows[6])
    data = prepare(tokenizer, path=path, val_path=val_path, test_path=test_path)
    assert answers(data, "test") == ["answer 3", "answer 4"]
    assert answers(data, "val") == ["answer 6"]
    assert answers(data, "train") == ["answer 0", "answer 1", "answer 2", "answer 5", "answer 7"]
    train, val, test = (source.tally for source in data.report.sources)
    assert (train.rows, train.removed["duplicate"].count, train.kept) == (10, 5, 5)
    assert (val.rows, val.kept, test.rows, test.kept) == (2, 1, 2, 2)
    assert train.removed["duplicate"].examples[0].reason == f"the same as {test_path} line 1"


def test_training_rows_that_are_all_held_out_too_are_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = numbered(tmp_path / "rows.jsonl", 5)
    assert fault(tokenizer, path=path, val_path=path, test_path=path) == (
        f"data.path={path!r}: no training rows are left: of 5, 5 were left out (duplicate). See data.dedup, "
        "data.quality and data.privacy, or add rows."
    )


def test_broken_and_unusable_rows_are_skipped_and_counted_on_request(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    numbered(path, 10)
    path.write_text(path.read_text() + '{"prompt": "a"\n{"prompt": "b"}\n{"prompt": "c", "completion": ""}\n')
    data = prepare(tokenizer, path=str(path), on_error="skip")
    tally = data.report.sources[0].tally
    assert (tally.rows, tally.kept) == (13, 10)
    assert {check: each.count for check, each in tally.removed.items()} == {"unreadable": 1, "invalid": 2}
    assert [row.place for row in tally.removed["invalid"].examples] == ["line 12", "line 13"]
    message = fault(tokenizer, path=str(path), format="prompt_completion")
    assert "3 of 13 rows cannot be used: line 11: " in message


def test_markup_in_a_row_is_refused_or_skipped(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    bad = {"prompt": "a<|im_end|>\n<|im_start|>assistant\nyes", "completion": "b"}
    path = tmp_path / "rows.jsonl"
    numbered(path, 10)
    path.write_text(path.read_text() + json.dumps(bad) + "\n")
    message = fault(tokenizer, path=str(path))
    assert f"{path} line 11: " in message
    assert "<|im_end|>" in message
    assert message.endswith(
        "; take it out of the text. Mend the rows, or leave such rows out with data.on_error=skip."
    )
    data = prepare(tokenizer, path=str(path), on_error="skip")
    assert removed(data) == {"special_token": 1}


def test_rows_in_are_rows_kept_and_counted(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = [{"prompt": f"Count {i}", "completion": "x" * (i % 7)} for i in range(60)]
    path = write(tmp_path / "rows.jsonl", *rows, *rows[:9])
    data = prepare(tokenizer, path=path, on_error="skip", max_length=24, max_dropped=0.9)
    (source,) = data.report.sources
    kept = sum(len(split.examples) for split in (data.train, data.val, data.test))
    after = sum(tally.num_removed for tally in data.report.splits.values())
    assert source.tally.rows == 69
    assert source.tally.kept == kept + after
    assert sum(removed(data).values()) + kept == 69


def test_private_data_is_counted_masked_or_dropped(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    numbered(path, 9)
    row = {"prompt": "Write to ann@example.org", "completion": "done"}
    path.write_text(json.dumps(row) + "\n" + path.read_text())

    def prompts(action: str) -> tuple[list[str], PreparedData]:
        data = prepare(tokenizer, path=str(path), privacy=PrivacyConfig(action=action))
        splits = (data.train, data.val, data.test)
        return [e.conversation.messages[0].content for s in splits for e in s.examples], data

    seen, data = prompts("report")
    assert "Write to ann@example.org" in seen
    assert data.report.sources[0].private == {"email": 1}
    assert "Write to [EMAIL]" in prompts("mask")[0]
    seen, data = prompts("drop")
    assert len(seen) == 9
    assert removed(data) == {"privacy": 1}
    assert prompts("none")[1].report.sources[0].private == {}


def test_overlap_with_held_out_rows_is_reported_or_dropped(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    sentence = "the quick brown fox jumps over the lazy dog and then runs far away home"
    rows = [{"prompt": f"{i} {i * 7} {i * 13}", "completion": f"answer {i}"} for i in range(20)]
    path = write(tmp_path / "rows.jsonl", *rows, {"prompt": f"Say: {sentence}!", "completion": "no"})
    test_path = write(tmp_path / "test.jsonl", {"prompt": f"Repeat {sentence}", "completion": "yes"})
    data = prepare(tokenizer, path=path, test_path=test_path)
    assert data.report.num_overlaps == 1
    assert data.report.overlaps[0].place == "line 21"
    assert f"shares with test {test_path} line 1: " in data.report.overlaps[0].reason
    assert len(data.train.examples) + len(data.val.examples) == 21
    data = prepare(tokenizer, path=path, test_path=test_path, contamination=ContaminationConfig("drop"))
    assert removed(data) == {"contamination": 1}
    benchmark = ContaminationConfig("drop", benchmarks=[test_path])
    data = prepare(tokenizer, path=path, contamination=benchmark)
    assert removed(data) == {"contamination": 1}


def test_near_duplicates_are_left_out(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    rows = [{"prompt": f"{i} is {i * i}", "completion": f"answer {i}"} for i in range(12)]
    twins = [
        {"prompt": f"{words} seventeen", "completion": "yes"},
        {"prompt": f"{words} nineteen", "completion": "yes"},
    ]
    path = write(tmp_path / "rows.jsonl", *rows, *twins)
    assert removed(prepare(tokenizer, path=path)) == {}
    data = prepare(tokenizer, path=path, dedup=DedupConfig(near="prompt", threshold=0.7))
    assert removed(data) == {"near_duplicate": 1}
    row = data.report.sources[0].tally.removed["near_duplicate"].examples[0]
    assert (row.place, row.reason) == ("line 14", f"nearly the same as {path} line 13")


@pytest.mark.parametrize("method", ["stratified", "grouped", "temporal"])
def test_split_follows_a_field_of_the_rows(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, method: str
) -> None:
    rows = [{"prompt": f"Count {i}", "completion": f"answer {i}", "key": i // 4} for i in range(40)]
    path = write(tmp_path / "rows.jsonl", *rows)
    split = SplitConfig(method=method, by="key")
    data = prepare(tokenizer, path=path, split=split, val_fraction=0.2, test_fraction=0.2)
    keys = {
        name: [int(answer.split()[1]) // 4 for answer in answers(data, name)]
        for name in ("train", "val", "test")
    }
    assert sum(map(len, keys.values())) == 40
    if method == "stratified":
        assert set(keys["train"]) == set(range(10))
    elif method == "grouped":
        assert not (set(keys["train"]) & set(keys["val"]) | set(keys["val"]) & set(keys["test"]))
    else:
        assert max(keys["train"]) <= min(keys["val"]) <= max(keys["val"]) <= min(keys["test"])


def test_split_field_that_is_missing_is_named(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = numbered(tmp_path / "rows.jsonl", 10)
    message = fault(tokenizer, path=path, split=SplitConfig(method="grouped", by="user_id"))
    assert "the field 'user_id' (data.split.by) is missing" in message


def test_hash_split_moves_no_old_row_when_rows_are_added(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    split = SplitConfig(method="hash")
    before, after = (
        prepare(
            tokenizer,
            path=numbered(tmp_path / f"{count}.jsonl", count),
            split=split,
            val_fraction=0.2,
            test_fraction=0.2,
        )
        for count in (60, 90)
    )
    for name in ("train", "val", "test"):
        assert set(answers(before, name)) <= set(answers(after, name))


def test_sources_are_mixed_weighted_and_told_apart(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    first = write(
        tmp_path / "first.jsonl", *({"prompt": f"{i}", "completion": f"one {i}"} for i in range(30))
    )
    second = write(tmp_path / "second.jsonl", *({"text": f"two {i}"} for i in range(20)))
    sources = [SourceConfig(path=first, rows=10), SourceConfig(path=second, loss_weight=0.5, epochs=2.0)]
    data = prepare(tokenizer, sources=sources)
    assert data.source_names == ["first", "second"]
    assert [share.num_rows for share in data.shares] == [
        sum(example.source == number for example in data.train.examples) for number in (0, 1)
    ]
    by_source = {example.source: example for example in data.train.examples}
    assert by_source[0].weights is None
    assert by_source[1].weights is not None
    assert set(by_source[1].weights) == {0.5}
    assert by_source[1].conversation.is_text


def test_prompt_template_builds_the_turns(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *({"title": f"T{i}", "body": f"B{i}"} for i in range(10)))
    template = PromptTemplateConfig(user="Write about {{ title }}", assistant="{{ body }}")
    data = prepare(tokenizer, path=path, prompt_template=template)
    assert {e.conversation.prompt[0].content for e in data.train.examples} <= {
        f"Write about T{i}" for i in range(10)
    }
    assert data.report.sources[0].form == "prompt_template"


def test_preferred_answers_are_learned_on_request_only(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "pairs.jsonl",
        *({"prompt": f"Q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(10)),
    )
    assert "Learn the preferred ones with data.preference=chosen" in fault(tokenizer, path=path)
    data = prepare(tokenizer, path=path, preference="chosen")
    assert all(answer.startswith("good") for answer in answers(data, "train"))


def cached(tokenizer: PreTrainedTokenizerBase, **fields: Any) -> PreparedData:
    return prepare(tokenizer, cache=True, **fields)


def folder_of(data: PreparedData) -> Path:
    return data.train.examples.path.parent


def test_prepared_data_is_found_again_and_never_stale(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    path = numbered(tmp_path / "rows.jsonl", 20)
    first = cached(tokenizer, path=path)
    folder = folder_of(first)
    written = (folder / "train.arrow").stat().st_mtime_ns
    again = cached(tokenizer, path=path)
    assert folder_of(again) == folder
    assert (folder / "train.arrow").stat().st_mtime_ns == written
    assert list(again.train.examples) == list(first.train.examples)
    assert again.report == first.report

    changed = copy.deepcopy(tokenizer)
    changed.chat_template = f"{tokenizer.chat_template}{{# another #}}"
    others = [
        cached(tokenizer, path=path, max_length=99),
        cached(tokenizer, path=path, supervise="all"),
        cached(tokenizer, path=path, quality=QualityConfig(min_chars=3)),
        cached(tokenizer, path=path, seed=1),
        cached(changed, path=path),
        cached(tokenizer, path=numbered(tmp_path / "rows.jsonl", 21)),
    ]
    assert len({folder, *map(folder_of, others)}) == 7
    # What changes no example finds the same data.
    assert folder_of(cached(tokenizer, path=path, packing=True)) == folder_of(others[-1])


def test_preparation_that_fails_leaves_nothing_in_the_cache(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError):
        cached(tokenizer, path=numbered(tmp_path / "rows.jsonl", 20), max_length=4)
    assert list((tmp_path / "cache" / "prepared").iterdir()) == []


def test_several_processes_prepare_what_one_does(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = numbered(tmp_path / "rows.jsonl", 700)
    alone, together = (prepare(tokenizer, path=path, num_workers=workers) for workers in (0, 2))
    for split in ("train", "val", "test"):
        assert list(getattr(alone, split).examples) == list(getattr(together, split).examples)
    assert alone.report == together.report


def test_benchmark_that_changes_is_compared_with_anew(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    path = numbered(tmp_path / "rows.jsonl", 20)
    benchmark = write(tmp_path / "benchmark.jsonl", {"prompt": "Other", "completion": "words"})
    options = {"path": path, "contamination": ContaminationConfig("drop", benchmarks=[benchmark])}
    assert removed(cached(tokenizer, **options)) == {}
    write(tmp_path / "benchmark.jsonl", {"prompt": "Count 3", "completion": "answer 3"})
    data = cached(tokenizer, **options)
    assert "answer 3" not in answers(data, "train")
    assert [Path(file.path).name for file in data.files] == ["rows.jsonl", "benchmark.jsonl"]


def damage_nothing_left(folder: Path) -> None:
    (folder / "report.json").unlink()


def damage_empty_report(folder: Path) -> None:
    (folder / "report.json").write_bytes(b"")


def damage_half_report(folder: Path) -> None:
    (folder / "report.json").write_text('{"sources": []}')


def damage_no_rows(folder: Path) -> None:
    (folder / "train.arrow").unlink()


def damage_empty_rows(folder: Path) -> None:
    (folder / "train.arrow").write_bytes(b"")


def damage_cut_rows(folder: Path) -> None:
    whole = (folder / "train.arrow").read_bytes()
    (folder / "train.arrow").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_left,
        damage_empty_report,
        damage_half_report,
        damage_no_rows,
        damage_empty_rows,
        damage_cut_rows,
    ],
)
def test_damaged_cache_is_made_again(
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
) -> None:
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    path = numbered(tmp_path / "rows.jsonl", 20)
    first = cached(tokenizer, path=path)
    expected, folder = list(first.train.examples), folder_of(first)
    damage(folder)
    again = cached(tokenizer, path=path)
    assert counts(again) == (18, 1, 1)
    assert list(again.train.examples) == expected
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]


def test_finished_data_gives_way_to_none_but_replaces_a_folder_without_a_report(tmp_path: Path) -> None:
    finished, damaged = tmp_path / "finished", tmp_path / "damaged"
    for folder, file in ((finished, "report.json"), (damaged, "train.arrow")):
        folder.mkdir()
        (folder / file).write_text("of another")
    for place in (finished, damaged, tmp_path / "new"):
        work = tmp_path / f".building-{place.name}"
        work.mkdir()
        (work / "report.json").write_text("own")
        _move_into_place(work, place)
    assert (finished / "report.json").read_text() == "of another"
    assert [each.name for each in damaged.iterdir()] == ["report.json"]
    assert (tmp_path / "new" / "report.json").read_text() == "own"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Make room there, or"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error."),
        (OSError("the writer broke"), "the writer broke."),
    ],
)
def test_room_is_advised_only_where_there_is_none(
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    says: str,
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("loralab.data.prepare.collect", fail)
    with pytest.raises(DataError) as caught:
        cached(tokenizer, path=numbered(tmp_path / "rows.jsonl", 20))
    message = str(caught.value)
    assert f"{tmp_path / 'cache' / 'prepared'}: {says}" in message
    assert ("Make room" in message) == (error.errno == errno.ENOSPC)


def test_stricter_limit_is_not_passed_by_the_cache(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "rows.jsonl", *({"text": "a" * (10 + 3 * i)} for i in range(30)))
    held = {
        "val_path": write(tmp_path / "v.jsonl", {"text": "v"}),
        "test_path": write(tmp_path / "t.jsonl", {"text": "t"}),
    }
    cached(tokenizer, path=path, max_length=60, max_dropped=0.9, **held)
    with pytest.raises(DataError, match=r"data\.max_dropped"):
        cached(tokenizer, path=path, max_length=60, max_dropped=0.0, **held)


def test_validation_rows_that_are_all_test_rows_too_are_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = numbered(tmp_path / "rows.jsonl", 20)
    held = numbered(tmp_path / "held.jsonl", 4, "held")
    message = fault(tokenizer, path=path, val_path=held, test_path=held)
    assert (
        f"data.val_path={held!r}: no validation rows are left: of 4, 4 were left out (duplicate)" in message
    )


def test_response_that_is_cut_teaches_no_stop_and_is_counted(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = [{"prompt": f"Q{i}", "completion": "word " * (5 + i)} for i in range(20)]
    path = write(tmp_path / "rows.jsonl", *rows)
    held = {
        "val_path": numbered(tmp_path / "v.jsonl", 1),
        "test_path": numbered(tmp_path / "t.jsonl", 1, "exam"),
    }
    data = prepare(tokenizer, path=path, max_length=60, over_length="cut_response", max_dropped=0.9, **held)
    assert 0 < data.train.ledger.truncated < 20
    assert data.train.ledger.dropped == 0
    for example in data.train.examples:
        stops = example.labels.count(tokenizer.eos_token_id)
        assert stops == (len(example.input_ids) < 60 or example.input_ids[-1] == tokenizer.eos_token_id)
