"""What a run says about its data before it trains."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig, PrivacyConfig, SourceConfig
from loralab.config.schema import TrainConfig
from loralab.data.datamodule import make_layout
from loralab.data.prepare import prepare_data
from loralab.training.introduction import notices, print_data


def said(tokenizer: PreTrainedTokenizerBase, path: Path, action: str = "report", **fields: Any) -> list[str]:
    config = DataConfig(
        name="file", path=str(path), cache=False, privacy=PrivacyConfig(action=action), **fields
    )
    return notices(prepare_data(config, tokenizer, 0), action)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twenty rows, the third and fifth with an address, and a copy of the second."""
    path = tmp_path / "rows.jsonl"
    given = [{"prompt": f"Count {i}", "completion": f"to {i}"} for i in range(20)]
    given[2]["prompt"] = given[4]["prompt"] = "Ask ann@example.org"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*given, given[1]]))
    return path


def test_a_run_says_what_was_left_out_cut_short_and_found(
    tokenizer: PreTrainedTokenizerBase, rows: Path
) -> None:
    assert said(tokenizer, rows) == [
        "rows left out: 1 duplicate",
        f"personal data: 2 email, such as in {rows} line 3; "
        "2 values in 2 rows: left as they are (data.privacy.action=report)",
    ]
    assert said(tokenizer, rows, max_examples=10)[0] == "rows: at most 10 of its rows (data.max_examples)"


def test_masking_says_how_many_values_of_how_many_rows_were_replaced(
    tokenizer: PreTrainedTokenizerBase, rows: Path
) -> None:
    assert "2 values in 2 rows: replaced (data.privacy.action=mask)" in said(tokenizer, rows, "mask")[-1]


def test_a_clean_file_has_no_notices(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(20)))
    assert said(tokenizer, path) == []


@pytest.mark.parametrize(
    ("long", "policy", "why"),
    [
        ({"prompt": "a", "completion": "word " * 80}, "window",
         "data.over_length=window cuts plain texts only: chats take cut_response, cut_oldest, cut_prompt"),
        ({"text": "word " * 80}, "cut_response",
         "data.over_length=cut_response shortens chats only: plain texts take window"),
    ],
)  # fmt: skip
def test_a_policy_that_does_not_suit_the_rows_is_said_with_the_one_that_does(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, long: dict[str, str], policy: str, why: str
) -> None:
    path = tmp_path / "rows.jsonl"
    short = [{name: f"row {i}" for name in long} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*short, long]))
    lines = said(tokenizer, path, over_length=policy, max_length=60, max_dropped=0.5)
    assert lines[0] == "rows left out: 1 over_length"
    assert lines[1].startswith(f"{path} line 41: the row has ")
    assert lines[1].endswith(why)
    assert len(said(tokenizer, path, over_length="drop", max_length=60, max_dropped=0.5)) == 1


def test_a_mixture_says_how_often_an_epoch_sees_the_rows_of_each_source(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, num_rows in (("a", 20), ("b", 6), ("held", 2)):
        rows = [{"text": f"{name} {i}"} for i in range(num_rows)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    a, b, held = (str(tmp_path / f"{name}.jsonl") for name in ("a", "b", "held"))
    sources = [SourceConfig(path=a), SourceConfig(path=b, epochs=2.5)]
    given = DataConfig("file", sources=sources, val_path=held, test_fraction=0.1, max_examples=8, cache=False)
    data = prepare_data(given, tokenizer, 0)
    print_data(Console(width=200), TrainConfig(data=given), data, make_layout(data, 0, None, None))
    counts = {
        name: len([e for e in data.train.examples if data.source_names[e.source] == name]) for name in "ab"
    }
    # 8 of 20 rows of a and all 6 of b, of which one of these 14 is held out: 2.5 x 6 or 2.5 x 5, rounded up.
    taken = {6: "15", 5: "13"}[counts["b"]]
    assert (
        f"an epoch takes {counts['a']} of {counts['a']} from a, first 8 rows (once), "
        f"{taken} of {counts['b']} from b (2 to 3 times)\n"
    ) in capsys.readouterr().out
