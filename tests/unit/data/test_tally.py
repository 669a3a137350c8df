import dataclasses

from loralab.data.records import Conversation, Message
from loralab.data.tally import (
    SHOWN_EXAMPLES,
    RemovedRow,
    Tally,
    describe_removed,
    excerpt,
    excerpt_turns,
)


def row(number: int) -> RemovedRow:
    return RemovedRow("rows.jsonl", f"line {number}", "too short", "hi")


def test_rows_in_are_rows_kept_and_rows_removed() -> None:
    tally = Tally(rows=20)
    for number in range(7):
        tally.remove("min_chars", row(number))
    tally.remove("duplicate", row(9))
    assert (tally.num_removed, tally.kept) == (8, 12)


def test_only_the_first_examples_are_kept_but_all_are_counted() -> None:
    tally = Tally(rows=20)
    for number in range(20):
        tally.remove("min_chars", row(number))
    removals = tally.removed["min_chars"]
    assert removals.count == 20
    assert removals.examples == [row(number) for number in range(SHOWN_EXAMPLES)]


def test_tallies_of_chunks_add_up() -> None:
    first, second = Tally(rows=4), Tally(rows=6)
    first.remove("a", row(1))
    for number in range(2, 8):
        second.remove("a", row(number))
    second.remove("b", row(9))
    first.add(second)
    assert (first.rows, first.removed["a"].count, first.removed["b"].count) == (10, 7, 1)
    assert first.removed["a"].examples == [row(number) for number in range(1, 6)]


def test_tally_survives_json() -> None:
    tally = Tally(rows=3)
    tally.remove("a", row(1))
    assert Tally.from_dict(dataclasses.asdict(tally)) == tally


def test_excerpt_is_one_short_line() -> None:
    assert excerpt("a\n b\t c") == "a b c"
    assert excerpt("x" * 500) == "x" * 200 + "…"


def test_turns_are_masked_before_they_are_cut() -> None:
    # Cut first, the address would end in `example-comp` and be found by nobody.
    text = f"{'x' * 176} john.smith@example-company.org"
    turns = [Message("user", text), Message("assistant", "done")]
    assert excerpt_turns(turns) == f"{'x' * 176} [EMAIL] / done"
    assert excerpt_turns(turns, ()) == f"{text[:200]}…"


def test_the_account_of_a_record_masks_the_reason_and_the_turns() -> None:
    record = Conversation((Message("user", "ask ann@example.org"),), "rows.jsonl", 3)
    removed = describe_removed(record, "quotes bob@example.org", ["email"])
    assert removed == RemovedRow("rows.jsonl", "line 3", "quotes [EMAIL]", "ask [EMAIL]")
    assert describe_removed(record, "quotes bob@example.org", []).reason == "quotes bob@example.org"
