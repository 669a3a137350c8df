"""Which rows a benchmark gives to compare with, whatever its files look like."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from loralab.config.data import BenchmarkConfig, ColumnsConfig, ContaminationConfig, DataConfig
from loralab.data.benchmarks import all_text, benchmark_sources, read_benchmark
from loralab.data.prepare import PreparedData, prepare_data
from loralab.data.report import SourceReport
from loralab.data.sources import Row
from loralab.data.tally import Tally
from loralab.errors import DataError

SENTENCE = "the quick brown fox jumps over the lazy dog and then runs far away home"


def write(path: Path, *rows: dict[str, Any], encoding: str = "utf-8") -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding=encoding)
    return str(path)


def texts(
    *benchmarks: Any, on_error: str = "raise", num_workers: int = 0
) -> tuple[list[list[str]], list[SourceReport]]:
    config = DataConfig(
        on_error=on_error,
        num_workers=num_workers,
        contamination=ContaminationConfig(benchmarks=list(benchmarks)),
    )
    found, accounts = [], []
    for source in benchmark_sources(config):
        accounts.append(SourceReport(source.name, "benchmark", "", Tally()))
        for record in read_benchmark(source, accounts[-1], config):
            found.append([message.content for message in record.messages])
    return found, accounts


def prepare(tokenizer: PreTrainedTokenizerBase, folder: Path, *benchmarks: Any) -> PreparedData:
    rows = [{"prompt": f"Count {i}", "completion": f"answer {i}"} for i in range(20)]
    path = write(folder / "rows.jsonl", *rows, {"prompt": f"Say: {SENTENCE}!", "completion": "no"})
    held = [write(folder / f"{part}.jsonl", {"prompt": part, "completion": part}) for part in ("val", "test")]
    config = DataConfig(
        name="file", path=path, val_path=held[0], test_path=held[1], cache=False,
        contamination=ContaminationConfig("drop", benchmarks=list(benchmarks)),
    )  # fmt: skip
    return prepare_data(config, tokenizer, seed=0)


def test_a_row_of_no_known_form_counts_with_all_of_its_text(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    row = {"id": 7, "ctx": SENTENCE, "endings": ["one", {"label": "two"}], "gold": None}
    found, (account,) = texts(path := write(tmp_path / "exam.jsonl", row))
    assert found == [[f"{SENTENCE}\none\ntwo"]]
    assert account.form == "any text"
    assert account.reason.startswith("found: no form fits, so all text of a row counts")
    assert len(prepare(tokenizer, tmp_path, path).train.examples) == 20


def test_a_row_without_text_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "exam.jsonl", {"ctx": "a"}, {"id": 7, "ctx": " "})
    with pytest.raises(DataError, match="line 2: no field of the row holds text to compare with"):
        texts(path)
    assert texts(path, on_error="skip")[0] == [["a"]]
    with pytest.raises(DataError):
        all_text({})


def test_an_entry_gives_the_columns_form_and_encoding_of_its_files(tmp_path: Path) -> None:
    path = write(tmp_path / "exam.jsonl", {"frage": "Grüße?", "antwort": "ä"}, encoding="latin-1")
    columns = ColumnsConfig(prompt="frage", response="antwort")
    found, (account,) = texts(BenchmarkConfig(path=path, columns=columns, encoding="latin-1"))
    assert (found, account.form) == ([["Grüße?", "ä"]], "prompt_completion")
    both = write(tmp_path / "both.jsonl", {"instruction": "a", "output": "b", "text": "c"})
    assert texts(BenchmarkConfig(path=both, format="text"))[0] == [["c"]]


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "exam.jsonl", {"question": "a"})
    with pytest.raises(DataError, match="Did you mean 'question'"):
        texts(BenchmarkConfig(path=path, columns=ColumnsConfig(prompt="questoin")))


def test_each_benchmark_is_read_also_where_two_have_one_path(tmp_path: Path) -> None:
    path = write(tmp_path / "exam.jsonl", {"text": "a", "body": "b"})
    other = BenchmarkConfig(path=path, columns=ColumnsConfig(text="body"))
    found, accounts = texts(path, other)
    assert found == [["a"], ["b"]]
    assert [account.name for account in accounts] == [path, f"{path} (2)"]


def test_a_dataset_of_the_hub_is_compared_with_and_pinned(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def read(name: str, subset: str, split: str, revision: str | None, key: str) -> Iterator[Row]:
        asked.append((name, subset, split, revision, key))
        yield Row(1, {"question": SENTENCE, "answer": "x"}, "row")

    monkeypatch.setattr("loralab.data.opening.read_hub", read)
    monkeypatch.setattr("loralab.data.prepare.hub_revision", lambda name, revision, key: f"commit of {name}")
    data = prepare(tokenizer, tmp_path, BenchmarkConfig(path="hub:openai/gsm8k", subset="main"))
    assert asked == [("openai/gsm8k", "main", "test", None, "data.contamination.benchmarks")]
    assert len(data.train.examples) == 20
    assert [report.name for report in data.report.benchmarks] == ["hub:openai/gsm8k main test"]
    assert (data.files[-1].path, data.files[-1].sha256) == ("hub:openai/gsm8k", "commit of openai/gsm8k")


def test_several_processes_read_what_one_does(tmp_path: Path) -> None:
    path = write(tmp_path / "exam.jsonl", *({"ctx": f"a {i}"} for i in range(600)))
    assert texts(path, num_workers=2)[0] == [[f"a {i}"] for i in range(600)]
