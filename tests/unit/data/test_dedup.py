"""Rows that say the same, to the letter or nearly so."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.dedup import (
    ExactDuplicates,
    MinHasher,
    content_key,
    conversation_text,
    near_duplicate_clusters,
    ngram_hashes,
    prompt_text,
    shingles,
    word_hashes,
    words,
)
from loralab.data.records import (
    Conversation,
    LabelledConversation,
    Message,
    PreferencePair,
    Record,
    ToolCall,
)

USER = Message("user", "Why is the sky blue?")
ANSWER = Message("assistant", "It scatters.")
CALL = Message("assistant", "", tool_calls=(ToolCall("find", {"a": 1, "b": [2]}, "c1"),))
CHAT = Conversation((USER, ANSWER), "file.jsonl", 7, ({"name": "find"},))
PAIR = PreferencePair((USER,), (ANSWER,), (Message("assistant", "No idea."),))


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"w{index}" for index in range(start, start + count)]


def replaced(sequence: list[str], *places: int) -> str:
    return " ".join("other" + str(index) if index in places else word for index, word in enumerate(sequence))


@pytest.mark.parametrize(
    "same",
    [
        replace(CHAT, source="other.jsonl", row=1),
        replace(CHAT, messages=(replace(USER, weight=0.0), replace(ANSWER, weight=1.0))),
        replace(CHAT, tools=(MappingProxyType({"name": "find"}),)),
    ],
)
def test_source_row_and_weights_do_not_count(same: Record) -> None:
    assert content_key(same) == content_key(CHAT)
    assert len(content_key(CHAT)) == 16


DIFFERENT: list[Record] = [
    CHAT,
    replace(CHAT, tools=()),
    replace(CHAT, tools=({"name": "find"}, {"name": "find"})),
    replace(CHAT, messages=(USER,)),
    replace(CHAT, messages=(USER, replace(ANSWER, content="It scatters. "))),
    replace(CHAT, messages=(USER, replace(ANSWER, content="it scatters."))),
    replace(CHAT, messages=(USER, replace(ANSWER, role="user"))),
    replace(CHAT, messages=(USER, replace(ANSWER, reasoning="Hm."))),
    replace(CHAT, messages=(USER, replace(ANSWER, name="Hm."))),
    replace(CHAT, messages=(USER, replace(ANSWER, tool_call_id="Hm."))),
    replace(CHAT, messages=(USER, CALL)),
    replace(CHAT, messages=(USER, replace(CALL, tool_calls=CALL.tool_calls * 2))),
    replace(CHAT, messages=(USER, replace(CALL, tool_calls=(ToolCall("find", {"a": 1, "b": [3]}, "c1"),)))),
    replace(CHAT, messages=(USER, replace(CALL, tool_calls=(ToolCall("find", '{"a": 1, "b": [2]}', "c1"),)))),
    LabelledConversation((USER, ANSWER), True, tools=CHAT.tools),
    LabelledConversation((USER, ANSWER), False, tools=CHAT.tools),
    PAIR,
    replace(PAIR, chosen=PAIR.rejected, rejected=PAIR.chosen),
    replace(PAIR, rejected=(Message("assistant", "No idea"),)),
    replace(PAIR, prompt=(USER, ANSWER), chosen=()),
    Conversation(PAIR.messages + PAIR.rejected),
    Conversation((Message("user", "é"),)),
    Conversation((Message("user", "e\u0301"),)),
    Conversation((Message("user", "\ud800"),)),
]


def test_all_that_a_record_says_counts() -> None:
    assert len({content_key(record) for record in DIFFERENT}) == len(DIFFERENT)


TEXTS = st.text(alphabet='ab",[]\\\n', max_size=6)


@given(st.lists(TEXTS, min_size=1, max_size=3), st.lists(TEXTS, min_size=1, max_size=3))
def test_fields_do_not_run_into_each_other(first: list[str], second: list[str]) -> None:
    keys = [
        content_key(Conversation(tuple(Message("user", text, reasoning=text[1:]) for text in texts)))
        for texts in (first, second)
    ]
    assert (keys[0] == keys[1]) == (first == second)


@given(st.lists(st.integers(0, 12).map(lambda number: number.to_bytes(16, "big")), max_size=60))
def test_the_first_row_of_each_key_is_found(keys: list[bytes]) -> None:
    duplicates = ExactDuplicates()
    # These keys differ in their last bytes only, so all of them are looked for in one place of the table.
    for row, key in enumerate(keys):
        assert duplicates.add(key) == (keys.index(key) if keys.index(key) < row else None)
    assert len(duplicates) == len(keys)


def test_growing_forgets_no_key() -> None:
    rng = np.random.default_rng(0)
    keys = [rng.bytes(16) for _ in range(5000)]
    duplicates = ExactDuplicates()
    assert [duplicates.add(key) for key in keys] == [None] * 5000
    assert [duplicates.add(key) for key in keys] == list(range(5000))


def test_texts_that_near_duplicates_compare() -> None:
    chat = Conversation((USER, ANSWER, Message("user", "More?"), replace(CALL, reasoning="Look it up.")))
    assert prompt_text(chat) == "Why is the sky blue?\nIt scatters.\nMore?"
    assert conversation_text(chat) == (
        'Why is the sky blue?\nIt scatters.\nMore?\nLook it up.\nfind {"a": 1, "b": [2]}'
    )
    assert prompt_text(PAIR) == "Why is the sky blue?"
    assert conversation_text(PAIR) == "Why is the sky blue?\nIt scatters.\nNo idea."


def test_a_row_without_a_prompt_is_compared_as_a_whole() -> None:
    assert prompt_text(Conversation((Message("text", "A document."),))) == "A document."
    assert prompt_text(Conversation((ANSWER,))) == "It scatters."
    assert prompt_text(Conversation((USER,))) == "Why is the sky blue?"
    assert prompt_text(Conversation((Message("system", "Write a poem."), ANSWER))) == "Write a poem."


def test_a_long_shared_system_prompt_makes_no_duplicates() -> None:
    system = Message("system", " ".join(numbered(300)))
    questions = ["Where do the swallows spend the cold months?", "How many legs has a common house spider?"]
    texts = [prompt_text(Conversation((system, Message("user", question), ANSWER))) for question in questions]
    assert near_duplicate_clusters(texts, 0.5, 128) == [0, 1]
    assert near_duplicate_clusters([texts[0], texts[0]], 0.5, 128) == [0, 0]


def test_the_same_request_about_another_document_is_no_duplicate() -> None:
    request = Message("user", "Summarise the document above in three short sentences for a child.")
    documents = [Message("system", " ".join(numbered(50, start))) for start in (0, 50)]
    texts = [prompt_text(Conversation((document, request, ANSWER))) for document in documents]
    assert near_duplicate_clusters(texts, 0.5, 128) == [0, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't PANIC, it's 3.5%!", ["don", "t", "panic", "it", "s", "3", "5"]),
        ("snake_case **bold**", ["snake", "case", "bold"]),
        ("“Größe” der Straße, süß", ["größe", "der", "straße", "süß"]),
        ("我爱你 ok", ["我", "爱", "你", "ok"]),
        ("हिन्दी में।", ["हिन्दी", "में"]),
        ("x" * 130, ["x" * 64, "x" * 64, "xx"]),
        ("ü" * 70, ["ü" * 64, "ü" * 6]),
        ("!? …", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_ngrams_are_told_apart_by_words_and_their_order() -> None:
    hashes = word_hashes(["a", "b", "c", "a", "b", "c", "b", "a"])
    grams = ngram_hashes(hashes, 3)
    assert len(grams) == 6
    # abc bca cab abc bcb cba: only the first and fourth are the same.
    assert grams[0] == grams[3]
    assert len(set(grams.tolist())) == 5


def test_hashes_do_not_change_from_process_to_process() -> None:
    code = "from loralab.data.dedup import *; print(shingles(word_hashes(words('a b c d e f'))).tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(shingles(word_hashes(words("a b c d e f"))).tolist())


def test_sketches_estimate_the_jaccard_similarity() -> None:
    # Sets of 100 of which 50 are shared: 50 / 150.
    hasher = MinHasher(0.8, 4096)
    hashes = word_hashes(numbered(150))
    first, second = (hasher.sketch(part)[1] for part in (hashes[:100], hashes[50:]))
    equal = np.mean(first == second)
    estimate = (equal - 2**-8) / (1 - 2**-8)
    assert abs(estimate - 1 / 3) < 4 * (1 / 3 * 2 / 3 / 4096) ** 0.5


def test_long_texts_are_sketched_in_pieces_as_one() -> None:
    hashes = word_hashes(numbered(10_000))
    hasher = MinHasher(0.8, 64)
    _, whole = hasher.sketch(hashes)
    _, mixed = hasher.sketch(np.concatenate([hashes[5000:], hashes]))
    assert whole.tolist() == mixed.tolist()


def test_bands_at_the_usual_threshold() -> None:
    # 1 - (1 - 0.8^7)^18 = 0.986; with bands of 8, 1 - (1 - 0.8^8)^16 = 0.947 misses too many.
    hasher = MinHasher(0.8, 128)
    assert (hasher.band_size, hasher.num_bands) == (7, 18)
    # (1 + 255 * 0.8) / 256 * 128 = 102.5 bytes
    assert hasher.min_equal == 103


def test_near_duplicates_take_the_number_of_the_first() -> None:
    base = numbered(104)
    # One changed word spoils 5 of the 100 shingles: 95 / 105 = 0.90; five spoil 25: 75 / 125 = 0.60.
    texts = [
        "nothing like the others at all, is it",
        " ".join(base),
        replaced(base, 50),
        replaced(base, 10, 30, 50, 70, 90),
        " ".join(base).upper().replace(" ", ", "),
        "nothing like the others, at all: is it?",
    ]
    assert near_duplicate_clusters(iter(texts), 0.8, 128) == [0, 1, 1, 3, 1, 0]
    assert near_duplicate_clusters(texts, 0.45, 128) == [0, 1, 1, 1, 1, 0]


def test_a_chain_of_near_duplicates_is_one_cluster() -> None:
    base = numbered(204)
    changed = [tuple(10 * step for step in range(1, count + 1)) for count in range(0, 15, 2)]
    texts = [replaced(base, *places) for places in changed]
    # Neighbours differ in two words: 190 / 210 = 0.90; the ends in 14: 130 / 270 = 0.48.
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(8)
        assert near_duplicate_clusters([texts[index] for index in order], 0.6, 256) == [0] * 8
    assert near_duplicate_clusters([texts[0], texts[-1]], 0.6, 256) == [0, 1]


def test_short_texts_are_compared_as_a_whole() -> None:
    texts = ["Thank you!", "thank you", "Thank you so", "???", "!!!", "???", ""]
    assert near_duplicate_clusters(texts, 0.5, 128) == [0, 0, 2, 3, 4, 3, 6]


def test_no_texts_give_no_clusters() -> None:
    assert near_duplicate_clusters([], 0.8, 128) == []


def test_all_of_many_duplicates_are_found_among_other_texts() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{number}" for number in rng.integers(0, 5000, 104)) for _ in range(300)]
    copies = [replaced(text.split(), 40) for text in texts[:200]]
    assert near_duplicate_clusters(texts + copies, 0.7, 128) == [*range(300), *range(200)]


def test_real_questions_agree_with_exact_similarities(shared_data: Path) -> None:
    lines = (shared_data / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["question"] for line in lines]
    clusters = near_duplicate_clusters(texts, 0.5, 128)
    sets = [
        {tuple(found[place : place + 5]) for place in range(len(found) - 4)} for found in map(words, texts)
    ]
    holders: dict[tuple[str, ...], list[int]] = {}
    for index, grams in enumerate(sets):
        for gram in grams:
            holders.setdefault(gram, []).append(index)
    pairs = {pair for rows in holders.values() if len(rows) < 100 for pair in combinations(rows, 2)}
    exact = {pair: len(sets[pair[0]] & sets[pair[1]]) / len(sets[pair[0]] | sets[pair[1]]) for pair in pairs}
    joined = {(clusters[index], index) for index in range(len(texts)) if clusters[index] != index}
    assert {pair for pair, similarity in exact.items() if similarity >= 0.6} <= joined
    assert {pair for pair, similarity in exact.items() if similarity >= 0.4} >= joined
    assert (2483, 6691) in joined
