"""Where personal data stands, as the intake of rows notes it."""

import pytest

from loralab.config.data import DataConfig, PrivacyConfig, PromptTemplateConfig, QualityConfig
from loralab.data.formats.registry import FORMATS
from loralab.data.intake import Intake, IntakeResult
from loralab.data.source import Source
from loralab.data.sources import Row
from loralab.data.tally import RemovedRow


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


def faulty(fields: dict[str, object], form: str = "prompt_completion", action: str = "drop") -> RemovedRow:
    """The account of one row that cannot be used."""
    source = Source("rows", "train", "data.path", "rows.jsonl", "auto", {}, PromptTemplateConfig(), "utf-8")
    config = DataConfig(privacy=PrivacyConfig(action=action))
    intake = Intake(source, FORMATS[form], config, for_training=True)
    return intake([("rows.jsonl", Row(1, fields))]).tally.removed["invalid"].examples[0]


@pytest.mark.parametrize(
    ("prompt", "quoted"),
    [
        ("Pay with\n4111 1111 1111 1111 now", '"Pay with\\n[CARD] now"'),
        ("Call\t(555) 123-4567", '"Call\\t[PHONE]"'),
        (["ask", {"to": "\njohn@example.org"}], '["ask", {"to": "\\n[EMAIL]"}]'),
    ],
)
def test_an_unusable_row_is_quoted_without_personal_data(prompt: object, quoted: str) -> None:
    fields = {"prompt": prompt, "completion": 7}
    assert faulty(fields).excerpt == f'{{"prompt": {quoted}, "completion": 7}}'


def test_names_of_fields_and_numbers_of_an_unusable_row_are_masked_too() -> None:
    fields = {"prompt": 4111111111111111, "john@example.org": ""}
    assert faulty(fields).excerpt == '{"prompt": [CARD], "[EMAIL]": ""}'


def test_the_quotation_of_an_unusable_row_is_cut_after_it_is_masked() -> None:
    # The cut at 200 characters would fall into the address.
    fields = {"prompt": f"{'x' * 179} john.smith@example-company.org", "completion": 7}
    assert faulty(fields).excerpt == f'{{"prompt": "{"x" * 179} [EMAIL]"…'


def test_the_reason_of_a_removal_is_masked() -> None:
    fields = {"prompt": "a", "completion": "b", "label": "john@example.org"}
    assert (
        faulty(fields, "unpaired").reason
        == "the field 'label' holds '[EMAIL]'; true, false, 1 or 0 is needed"
    )
    assert "john@example.org" in faulty(fields, "unpaired", action="none").reason


def test_a_row_left_out_by_its_quality_is_cut_after_it_is_masked() -> None:
    text = f"{'word ' * 38}john.smith@example-company.org"
    source = Source("rows", "train", "data.path", "rows.jsonl", "auto", {}, PromptTemplateConfig(), "utf-8")
    config = DataConfig(quality=QualityConfig(min_chars=5))
    intake = Intake(source, FORMATS["prompt_completion"], config, for_training=True)
    result = intake([("rows.jsonl", Row(1, {"prompt": text, "completion": "done"}))])
    assert result.tally.removed["min_chars"].examples[0].excerpt == f"{'word ' * 38}[EMAIL] / …"
