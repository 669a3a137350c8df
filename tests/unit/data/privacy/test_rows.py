"""Private data in every text of a row."""

import json
from collections import Counter
from pathlib import Path

from loralab.data.privacy import FINDERS, mask_record, quote_findings, scan_record
from loralab.data.records import Conversation, LabelledConversation, Message, PreferencePair, ToolCall

KINDS = tuple(FINDERS)
MAIL = "ann@example.com"
CALL = ToolCall("send", {"to": [MAIL, {"cc": MAIL}], "count": 3, "phone": "(555) 123-4567"}, "c1")


def test_contents_reasoning_and_arguments_are_counted() -> None:
    record = Conversation(
        (
            Message("user", f"write to {MAIL}"),
            Message("assistant", "", tool_calls=(CALL, ToolCall("say", f'"{MAIL}"')), reasoning=f"so {MAIL}"),
        )
    )
    assert scan_record(record, KINDS) == {"email": 5, "phone": 1}


def test_a_masked_row_keeps_all_else() -> None:
    turn = Message("assistant", f"sent to {MAIL}", 0.5, (CALL,), f"to {MAIL}?", "n", "c0")
    record = LabelledConversation((Message("user", "hi"), turn), True, "f.jsonl", 7, ({"name": "send"},))
    masked = mask_record(record, KINDS)
    arguments = {"to": ["[EMAIL]", {"cc": "[EMAIL]"}], "count": 3, "phone": "[PHONE]"}
    expected = Message(
        "assistant", "sent to [EMAIL]", 0.5, (ToolCall("send", arguments, "c1"),), "to [EMAIL]?", "n", "c0"
    )
    assert masked == LabelledConversation(
        (Message("user", "hi"), expected), True, "f.jsonl", 7, ({"name": "send"},)
    )
    assert scan_record(masked, KINDS) == {}


def test_a_quotation_shows_what_stands_around_and_nothing_private() -> None:
    text = f"{'left ' * 30}write to {MAIL} or bob@example.com, phone (555) 123-4567{' right' * 30}"
    quotes = quote_findings(Conversation((Message("user", "[EMAIL] hi"), Message("assistant", text))), KINDS)
    assert quotes["email"].startswith("…left left")
    assert "left write to [EMAIL] or [EMAIL], phone [PHONE] right" in quotes["email"]
    assert quotes["email"].endswith("…")
    assert "phone [PHONE] right" in quotes["phone"]
    assert set(quotes) == {"email", "phone"}
    assert not any("@" in quote or "555" in quote for quote in quotes.values())


def test_a_quotation_of_a_short_text_is_the_text_masked() -> None:
    record = Conversation((Message("user", f"a\n  {MAIL}"),))
    assert quote_findings(record, ["email"]) == {"email": "a [EMAIL]"}
    assert quote_findings(record, ["phone"]) == {}


def test_all_sides_of_a_pair_are_seen() -> None:
    pair = PreferencePair(
        (Message("user", MAIL),), (Message("assistant", MAIL),), (Message("assistant", f"{MAIL} {MAIL}"),)
    )
    assert scan_record(pair, ["email"]) == {"email": 4}
    masked = mask_record(pair, ["email"])
    assert isinstance(masked, PreferencePair)
    assert [turn.content for turn in (*masked.messages, *masked.rejected)] == [
        "[EMAIL]",
        "[EMAIL]",
        "[EMAIL] [EMAIL]",
    ]


def test_a_row_without_findings_is_the_same_object() -> None:
    record = Conversation((Message("text", "nothing here"),))
    assert mask_record(record, KINDS) is record


def test_findings_in_public_rows_are_the_known_ones(shared_data: Path) -> None:
    rows = json.loads((shared_data / "alpaca_en_demo.json").read_text("utf-8"))
    counts: Counter[str] = Counter()
    for row in rows:
        texts = (row["instruction"], row["input"], row["output"])
        counts.update(scan_record(Conversation(tuple(Message("user", text) for text in texts)), KINDS))
    assert counts == {"email": 5, "phone": 1, "secret": 1}
