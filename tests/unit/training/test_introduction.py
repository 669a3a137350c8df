"""What a run says about its data before it trains."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig, PrivacyConfig
from loralab.data.prepare import prepare_data
from loralab.training.introduction import notices


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
    assert said(tokenizer, rows, max_examples=10)[0] == "rows: at most 10 rows are read (data.max_examples)"


def test_masking_says_how_many_values_of_how_many_rows_were_replaced(
    tokenizer: PreTrainedTokenizerBase, rows: Path
) -> None:
    assert "2 values in 2 rows: replaced (data.privacy.action=mask)" in said(tokenizer, rows, "mask")[-1]


def test_a_clean_file_has_no_notices(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(20)))
    assert said(tokenizer, path) == []
