"""Training rows that overlap with held-out rows and benchmarks."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from loralab.data.contamination import Overlap, OverlapIndex
from loralab.data.dedup import words
from loralab.data.records import Conversation, Message, PreferencePair, Record


def numbered(count: int, start: int = 0) -> str:
    return " ".join(f"w{index}" for index in range(start, start + count))


def chat(user: str, assistant: str = "", system: str = "", source: str = "test.jsonl") -> Conversation:
    turns = [Message("system", system), Message("user", user), Message("assistant", assistant)]
    return Conversation(tuple(turn for turn in turns if turn.content), source)


def index_of(*records: Record, ngram: int = 5, near: float | None = None) -> OverlapIndex:
    index = OverlapIndex(ngram, near)
    for number, record in enumerate(records, 1):
        index.add(record, f"test row {number}")
    return index


def test_a_shared_ngram_is_found_with_the_row_and_the_words() -> None:
    index = index_of(chat("x1 x2 x3 x4 x5 x6"), chat(numbered(20), "and so on and on"))
    found = index.find(chat("Well: W3, w4; W5 (w6) w7 -- w8! Is it?", "Quite."))
    assert found == Overlap("test row 2", "ngram", "w3 w4 w5 w6 w7 w8")


def test_many_rows_at_once_are_found_as_one_by_one() -> None:
    index = index_of(
        chat(numbered(20), "and so on and on"), chat("name a city", "rome"), chat(numbered(9, 50))
    )
    silent = Conversation((Message("system", numbered(20)),))
    rows = [
        chat("none of it", numbered(6, 3)),
        silent,
        chat("Name a city", "Rome!"),
        chat(numbered(3), numbered(9, 3) + " and " + numbered(6, 50)),
        chat(numbered(2), numbered(2, 2)),
        chat("", numbered(6, 51)),
    ]
    expected = [
        Overlap("test row 1", "ngram", numbered(6, 3)),
        None,
        Overlap("test row 2", "exact", "name a city rome"),
        Overlap("test row 1", "ngram", numbered(9, 3)),
        None,
        Overlap("test row 3", "ngram", numbered(6, 51)),
    ]
    assert index.find_all(rows) == expected == [index.find(row) for row in rows]
    assert index.find_all([]) == []


def test_one_word_less_than_the_ngram_is_no_overlap() -> None:
    index = index_of(chat(numbered(20)))
    assert index.find(chat("a b c w3 w4 w5 w6 d e f")) is None
    assert index.find(chat("a b c w3 w4 w5 w6 w7 e f")) is not None


def test_words_of_two_turns_are_no_ngram() -> None:
    index = index_of(chat(numbered(3), numbered(9, 3)))
    assert index.find(chat("w1 w2 w3 w4 w5 w6", "unlike")) is None


def test_system_and_tool_turns_do_not_count() -> None:
    system = numbered(30)
    index = index_of(chat("what is the answer to this", "no idea at all", system))
    assert index.find(chat("who won the game of today", "I can not say", system)) is None
    tool = Conversation((Message("user", "go"), Message("tool", numbered(30)), Message("assistant", "done")))
    assert index_of(tool).find(Conversation((Message("text", numbered(30)),))) is None


def test_documents_reasoning_and_rejected_answers_count() -> None:
    index = index_of(Conversation((Message("text", numbered(12)),)))
    thought = Conversation((Message("user", "a"), Message("assistant", "b", reasoning=numbered(7, 2))))
    pair = PreferencePair(
        (Message("user", "a"),), (Message("assistant", "b"),), (Message("assistant", numbered(7, 3)),)
    )
    assert index.find(thought) == Overlap("test row 1", "ngram", numbered(7, 2))
    assert index.find(pair) == Overlap("test row 1", "ngram", numbered(7, 3))


def test_short_rows_overlap_only_as_a_whole() -> None:
    index = index_of(chat("What is two and", "Four, it is."), chat("Name a city", "Rome"))
    assert index.find(chat("what is two and...", "four it is")) == Overlap(
        "test row 1", "exact", "what is two and four it is"
    )
    assert index.find(chat("Name a city", "Paris")) is None
    assert index.find(chat("Please name a city", "Rome")) is None


def test_a_short_benchmark_prompt_is_found_under_any_answer() -> None:
    index = index_of(chat("Name the largest city"))
    answered = chat("Name the largest city", "That would be Tokyo by most measures", source="train.jsonl")
    assert index.find(answered) == Overlap("test row 1", "exact", "name the largest city")


def test_rows_without_words_never_overlap() -> None:
    assert index_of(chat("???")).find(chat("!!!")) is None


def test_nothing_overlaps_with_no_rows() -> None:
    assert OverlapIndex(13, 0.8).find(chat(numbered(30))) is None


INSTRUCTION = "read the review below and say whether the writer liked the film or not"


def test_the_fixed_text_of_a_prompt_is_no_overlap() -> None:
    held_out = [chat(f"{INSTRUCTION}: the {numbered(8, 100 * row)}", "yes") for row in range(40)]
    index = index_of(*held_out, ngram=8)
    # The last common n-gram ends at "the"; row 4's next ones begin with 7, 6, ... words inside of it.
    assert index.find(chat(f"{INSTRUCTION}: the w300 was dull", "no")) is None
    assert index.find(chat(f"say: {numbered(8, 300)}", "no")) == Overlap(
        "test row 4", "ngram", numbered(8, 300)
    )


def test_fixed_text_is_judged_in_each_source() -> None:
    benchmark = [chat(f"{INSTRUCTION}: {numbered(8, 100 * row)}", source="bench.jsonl") for row in range(30)]
    others = [chat(numbered(30, 10_000 + 100 * row)) for row in range(1000)]
    assert index_of(*others, *benchmark, ngram=8).find(chat(f"{INSTRUCTION}: other words", "no")) is None


def test_a_passage_that_few_rows_share_still_counts() -> None:
    passage = numbered(20)
    held_out = [chat(f"{passage} q{row}" if row < 2 else numbered(20, 100 * row)) for row in range(20)]
    assert index_of(*held_out).find(chat(passage)) == Overlap("test row 1", "ngram", passage)
    assert index_of(*held_out).find(held_out[1]) == Overlap("test row 1", "ngram", passage)
    three = [chat(f"{passage} q{row}" if row < 3 else numbered(20, 100 * row)) for row in range(20)]
    assert index_of(*three).find(chat(passage)) is None
    assert index_of(*three).find(three[1]) == Overlap("test row 2", "exact", f"{passage} q1")


def test_in_few_rows_only_what_most_share_is_fixed_text() -> None:
    rows = [chat(f"{INSTRUCTION}: {numbered(9, 100 * row)}") for row in range(2)]
    assert index_of(*rows).find(chat(f"{INSTRUCTION}: other words")) is None
    assert index_of(rows[0]).find(chat(f"{INSTRUCTION}: other words")) is not None
    other = [chat(numbered(9, 1000 + 100 * row)) for row in range(2)]
    assert index_of(*rows, *other).find(chat(f"{INSTRUCTION}: other words")) is not None


def test_a_row_that_repeats_itself_has_no_fixed_text() -> None:
    held_out = [chat(f"{numbered(6)} " * 10), *(chat(numbered(20, 100 * row)) for row in range(1, 20))]
    assert index_of(*held_out).find(chat(numbered(6))) is not None


def test_near_rows_are_found_where_no_ngram_is_shared() -> None:
    base = numbered(104).split()
    # One word in every 40 changed: no 50 words in a row agree; 85 of 115 shingles do (0.74).
    changed = " ".join("other" if place % 40 == 20 else word for place, word in enumerate(base))
    records = [chat(numbered(104, 500)), chat(" ".join(base)), chat("???")]
    assert index_of(*records, ngram=50).find(chat(changed)) is None
    found = index_of(*records, ngram=50, near=0.5).find(chat(changed))
    assert found is not None
    assert (found.against, found.kind) == ("test row 2", "near")
    assert found.text.startswith("w0 w1 w2")
    assert index_of(*records, ngram=50, near=0.95).find(chat(changed)) is None


def test_rows_that_are_only_a_little_alike_are_not_near() -> None:
    index = index_of(chat(numbered(104)), ngram=90, near=0.8)
    # 80 of 120 shingles agree; two in three such pairs share a band.
    for start in range(5, 15):
        places = range(start, 104, 24)[:4]
        changed = " ".join("x" if place in places else f"w{place}" for place in range(104))
        assert index.find(chat(changed)) is None


def test_the_nearest_of_several_rows_is_named() -> None:
    base = numbered(104).split()
    texts = [
        " ".join("x" if place in places else word for place, word in enumerate(base))
        for places in ((9, 50), (50,))
    ]
    assert index_of(*map(chat, texts), ngram=90, near=0.5).find(chat(numbered(104))).against == "test row 2"  # type: ignore[union-attr]


def test_long_shared_text_is_clipped() -> None:
    found = index_of(chat(numbered(500))).find(chat(numbered(500)))
    assert found is not None
    assert len(found.text) == 120
    assert found.text.startswith("w0 w1 w2")
    assert found.text.endswith("…")


@pytest.mark.parametrize("near", [None, 0.5])
def test_a_copy_in_another_process_finds_the_same(near: float | None) -> None:
    index = index_of(chat(numbered(20)), chat("hello"), ngram=5, near=near)
    index.freeze()
    copy = pickle.loads(pickle.dumps(index))
    for record in (chat(numbered(6, 4)), chat("hello"), chat("something else")):
        assert copy.find(record) == index.find(record)


def test_ngrams_agree_with_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 6, rng.integers(1, 25)))) for _ in range(240)]
    held_out, training = texts[:19], texts[19:]
    index = index_of(*map(chat, held_out), ngram=6)

    def grams(text: str) -> set[tuple[str, ...]]:
        found = text.split()
        return {tuple(found[place : place + 6]) for place in range(len(found) - 5)}

    num_found = 0
    for text in training:
        rows = [row for row, other in enumerate(held_out, 1) if grams(text) & grams(other)]
        short = [row for row, other in enumerate(held_out, 1) if other == text and not grams(other)]
        found = index.find(chat(text))
        assert (found is not None) == bool(rows or short)
        num_found += bool(rows)
        if rows and found:
            assert int(found.against.split()[-1]) in rows
            assert grams(found.text)
    assert num_found > 5


def test_real_questions_agree_with_a_plain_search(shared_data: Path) -> None:
    def read(name: str) -> list[Conversation]:
        lines = (shared_data / name).read_text(encoding="utf-8").splitlines()
        return [chat(row["question"], row["answer"]) for row in map(json.loads, lines)]

    def grams(record: Conversation) -> set[tuple[str, ...]]:
        turns = [words(message.content) for message in record.messages]
        return {tuple(turn[place : place + 13]) for turn in turns for place in range(len(turn) - 12)}

    held_out = read("gsm8k_test.jsonl")
    index = index_of(*held_out, ngram=13)
    known = set().union(*map(grams, held_out))
    training = read("gsm8k_train.jsonl")
    found = {number for number, record in enumerate(training) if index.find(record)}
    assert found == {number for number, record in enumerate(training) if grams(record) & known}
    assert found
