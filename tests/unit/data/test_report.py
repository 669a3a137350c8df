"""The account of the rows: what adds up, what is written, and what must not be in it."""

import dataclasses
import json

from loralab.data.gate import Ledger
from loralab.data.report import DataReport, SourceReport
from loralab.data.tally import Removals, RemovedRow, Tally

LEDGER = Ledger(9, 8, 0, 1, 8, 80, 40, 5, 10.0, 12, {"edges": [0, 9], "counts": [9]})
ROW = RemovedRow("rows.jsonl", "line 3", "the row has 12 tokens", "write to ann@example.com")


def full_report() -> DataReport:
    source = SourceReport(
        "rows",
        "train",
        "openai",
        Tally(10, {"duplicate": Removals(1, [ROW])}),
        {"email": 2},
        1,
        {"email": [RemovedRow("rows.jsonl", "line 3", "", "write to [EMAIL]")]},
        "found",
        10,
        {
            "train": Tally(6, {"over_length": Removals(1, [ROW])}),
            "val": Tally(3, {"over_length": Removals(2, [ROW])}),
        },
        LEDGER,
    )
    splits = {"train": Tally(6, {"over_length": Removals(1, [ROW])}), "val": Tally(3)}
    benchmark = SourceReport("test.jsonl", "benchmark", "prompts", Tally(4, {"invalid": Removals(1, [ROW])}))
    return DataReport([source], splits, {"train": LEDGER}, [ROW], 7, [benchmark])


def test_a_report_survives_json() -> None:
    report = full_report()
    assert DataReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_the_account_holds_each_ledger_and_each_example_once() -> None:
    account = full_report().to_account()
    assert "ledgers" not in account
    assert account["splits"]["train"]["supervised_tokens"] == 40
    assert account["removed_after_split"] == {"train": {"over_length": 1}, "val": {}}
    (source,) = account["sources"]
    assert source["splits"]["val"]["removed"]["over_length"]["count"] == 2
    assert source["ledger"]["supervised_tokens_lost"] == 5
    assert account["benchmarks"][0]["tally"]["rows"] == 4


def test_what_was_left_out_after_the_split_adds_up_over_the_splits() -> None:
    (source,) = full_report().sources
    assert source.later.rows == 9
    assert source.later.removed["over_length"].count == 3
    # Adding up changes nothing of what is added.
    assert source.splits["train"].removed["over_length"].count == 1


def test_quotations_are_masked_everywhere() -> None:
    report = full_report()
    report.overlaps = [dataclasses.replace(ROW, reason="shares with test: ann@example.com")]
    report.mask_quotes(["email"])
    assert "ann@example.com" not in json.dumps(report.to_dict())
    assert report.overlaps[0].excerpt == "write to [EMAIL]"
    assert report.overlaps[0].reason == "shares with test: [EMAIL]"
    assert report.sources[0].splits["val"].removed["over_length"].count == 2


def test_findings_of_chunks_add_up_and_the_first_five_places_stay() -> None:
    source = SourceReport("rows", "train", "openai", Tally())
    places = [RemovedRow("rows.jsonl", f"line {number}", "", "[PHONE]") for number in range(1, 8)]
    source.add_findings({"phone": 4}, 3, {"phone": places[:3]})
    source.add_findings({"phone": 5, "email": 1}, 4, {"phone": places[3:], "email": places[6:]})
    assert source.private == {"phone": 9, "email": 1}
    assert source.private_rows == 7
    assert source.private_examples == {"phone": places[:5], "email": places[6:]}
