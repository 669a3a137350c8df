"""ShareGPT preference pairs."""

import json
from pathlib import Path
from typing import Any

import pytest

from loralab.data.formats.sharegpt_preference import from_record, matches, to_record
from loralab.data.records import Message, PreferencePair
from loralab.errors import DataError

ASK = {"from": "human", "value": "a"}
GOOD, BAD = {"from": "gpt", "value": "b"}, {"from": "gpt", "value": "c"}
PAIR = PreferencePair((Message("user", "a"),), (Message("assistant", "b"),), (Message("assistant", "c"),))


def test_matches_sharegpt_turns_beside_two_answers() -> None:
    assert matches({"conversations": [ASK], "chosen": GOOD, "rejected": BAD})
    assert not matches({"conversations": [ASK], "chosen": GOOD})
    assert not matches({"conversations": [{"role": "user"}], "chosen": GOOD, "rejected": BAD})


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [ASK], "chosen": GOOD, "rejected": BAD},
        {"conversations": [ASK], "chosen": [GOOD], "rejected": "c"},
        {"conversations": json.dumps([ASK]), "chosen": json.dumps(GOOD), "rejected": json.dumps([BAD])},
        {"conversations": json.dumps([ASK]), "chosen": "b", "rejected": "c"},
    ],
)
def test_every_way_to_write_a_pair_reads_the_same(row: dict[str, Any]) -> None:
    assert to_record(row) == PAIR


@pytest.mark.parametrize("text", ['{"a": 1}', "[]", "[1]", "{b", json.dumps(GOOD)])
def test_answer_text_that_looks_like_json_stays_text_unless_it_is_a_turn_in_a_cell(text: str) -> None:
    record = to_record({"conversations": [ASK], "chosen": text, "rejected": BAD})
    assert record.messages[-1].content == text
    cell = to_record({"conversations": json.dumps([ASK]), "chosen": text, "rejected": "c"})
    assert cell.messages[-1].content == ("b" if text == json.dumps(GOOD) else text)


def test_single_answers_are_written_as_objects() -> None:
    assert from_record(PAIR) == {"conversations": [ASK], "chosen": GOOD, "rejected": BAD}


def test_public_pairs_are_read_and_written_back(shared_data: Path) -> None:
    rows = json.loads((shared_data / "dpo_en_demo.json").read_text(encoding="utf-8"))
    assert len(rows) == 300
    assert all(to_record(from_record(record)) == record for record in map(to_record, rows))
    assert to_record(rows[0]).messages[1].content == rows[0]["chosen"]["value"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": GOOD}, "the field 'rejected' is missing."),
        (
            {"chosen": ASK, "rejected": BAD},
            "'chosen' has no assistant turn; an answer to the prompt is needed",
        ),
        (
            {"chosen": GOOD, "rejected": 3},
            "the field 'rejected' holds a number; a string, a turn or a list of turns is needed",
        ),
        (
            {"chosen": {"form": "gpt", "value": "b"}, "rejected": BAD},
            "'chosen' turn 1: 'from' is missing",
        ),
        (
            {"chosen": [ASK, GOOD], "rejected": BAD},
            "'chosen' starts with a turn of role 'user' that is not the prompt's; both must answer the same "
            "prompt",
        ),
        (
            {"chosen": GOOD, "rejected": BAD, "conversations": None},
            "the field 'conversations' holds null; a list of turns is needed",
        ),
    ],
)
def test_faulty_row_is_explained(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        to_record({"conversations": [ASK], **row})
    assert str(error.value) == expected
