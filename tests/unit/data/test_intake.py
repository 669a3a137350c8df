"""Where personal data stands, as the intake of rows notes it."""

import pytest

from loralab.config.data import DataConfig, PrivacyConfig, PromptTemplateConfig
from loralab.data.formats.registry import FORMATS
from loralab.data.intake import Intake, IntakeResult
from loralab.data.source import Source
from loralab.data.sources import Row


def take(*prompts: str, action: str = "report", kinds: list[str] | None = None) -> IntakeResult:
    """Takes in rows with these prompts, from line 1 on."""
    source = Source("rows", "train", "data.path", "rows.jsonl", "auto", {}, PromptTemplateConfig(), "utf-8")
    privacy = PrivacyConfig(action=action) if kinds is None else PrivacyConfig(action=action, kinds=kinds)
    intake = Intake(source, FORMATS["prompt_completion"], DataConfig(privacy=privacy), for_training=True)
    rows = [Row(line, {"prompt": text, "completion": "done"}) for line, text in enumerate(prompts, 1)]
    return intake([("rows.jsonl", row) for row in rows])


@pytest.mark.parametrize("action", ["report", "mask", "drop"])
def test_the_places_of_personal_data_are_kept_and_the_data_is_not(action: str) -> None:
    result = take(
        "Hello",
        "Ask ann@example.org or bob@example.org",
        "Call +1 212 555 0187, ann@example.org",
        action=action,
    )
    assert result.private == {"email": 3, "phone": 1}
    assert result.private_rows == 2
    shown = {
        kind: [(row.file, row.place, row.excerpt) for row in rows]
        for kind, rows in result.private_examples.items()
    }
    assert shown == {
        "email": [
            ("rows.jsonl", "line 2", "Ask [EMAIL] or [EMAIL]"),
            ("rows.jsonl", "line 3", "Call [PHONE], [EMAIL]"),
        ],
        "phone": [("rows.jsonl", "line 3", "Call [PHONE], [EMAIL]")],
    }


def test_five_places_of_each_kind_are_kept_and_all_are_counted() -> None:
    result = take(*(f"Ask a{number}@example.org" for number in range(8)), "Call +1 212 555 0187")
    assert result.private == {"email": 8, "phone": 1}
    assert [row.place for row in result.private_examples["email"]] == [f"line {n}" for n in range(1, 6)]
    assert [row.place for row in result.private_examples["phone"]] == ["line 9"]
    assert result.private_rows == 9


def test_nothing_is_noted_where_nothing_is_looked_for() -> None:
    result = take("Ask ann@example.org", action="none")
    assert (result.private, result.private_rows, result.private_examples) == ({}, 0, {})
    assert take("Ask ann@example.org", kinds=["phone"]).private_rows == 0
