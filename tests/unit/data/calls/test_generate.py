"""The embedded calls are reproducible, leak-free between splits, and answerable from the request alone."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from loralab.data.calls import generate

SPLIT_PAIRS = list(itertools.combinations(("train", "validation", "test"), 2))
EXPECTED_KEYS = {
    "create_event": ["call", "title", "person", "date", "time"],
    "set_reminder": ["call", "text", "date", "time"],
    "set_timer": ["call", "minutes", "label"],
    "convert_units": ["call", "value", "from", "to"],
    "set_level": ["call", "device", "room", "level"],
    "send_message": ["call", "to", "text"],
    "play_music": ["call", "title", "artist"],
    "add_to_list": ["call", "item", "quantity", "list"],
}
UNIT_NAMES = {
    "km": "kilometres",
    "mi": "miles",
    "m": "metres",
    "cm": "centimetres",
    "ft": "feet",
    "in": "inches",
    "kg": "kilograms",
    "g": "grams",
    "lb": "pounds",
    "oz": "ounces",
    "l": "litres",
    "gal": "gallons",
}
CLOSED_VOCABULARIES = {
    "from": set(UNIT_NAMES),
    "to": set(UNIT_NAMES),
    "device": {"lamp", "fan", "heater", "speaker", "projector"},
    "room": {"kitchen", "bedroom", "bathroom", "living room", "hallway", "garage", "attic", "nursery"},
    "list": {"shopping", "packing", "party", "picnic", "camping"},
}


def read_pairs(split: str) -> list[tuple[str, dict[str, Any]]]:
    """Request and parsed answer of every committed row."""
    lines = (Path(generate.__file__).parent / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line)["messages"] for line in lines]
    return [(messages[1]["content"], json.loads(messages[2]["content"])) for messages in rows]


def is_closed(call: str, key: str) -> bool:
    """Whether a slot takes values of a vocabulary that all splits share."""
    return key in CLOSED_VOCABULARIES and (call == "convert_units" or key not in ("from", "to"))


def surface(call: str, key: str, value: str | int) -> str:
    """How a value of the answer reads in the request."""
    return UNIT_NAMES[str(value)] if call == "convert_units" and key != "value" else str(value)


def skeleton(request: str, answer: dict[str, Any]) -> tuple[str, ...]:
    """Lower-case words of the request without punctuation, each slot value replaced by one underscore."""
    call = answer["call"]
    values = {surface(call, key, value) for key, value in answer.items() if key != "call"}
    for value in sorted(values, key=len, reverse=True):
        request = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "_", request)
    return tuple(re.findall(r"[\w']+", request.lower()))


def skeletons(split: str) -> set[tuple[str, ...]]:
    """All skeletons of a split."""
    return {skeleton(*pair) for pair in read_pairs(split)}


def open_values(split: str) -> set[str]:
    """Lower-case values of all slots with an open vocabulary."""
    return {
        str(value).lower()
        for _, answer in read_pairs(split)
        for key, value in answer.items()
        if key != "call" and not is_closed(answer["call"], key)
    }


def word_sequences(words: tuple[str, ...], length: int) -> set[tuple[str, ...]]:
    """Runs of successive words of a length."""
    return {words[start : start + length] for start in range(len(words) - length + 1)}


def test_committed_files_equal_generated_files(tmp_path: Path) -> None:
    generate.write_splits(tmp_path)
    for split in generate.SPLITS:
        committed = Path(generate.__file__).parent / f"{split}.jsonl"
        assert (tmp_path / committed.name).read_bytes() == committed.read_bytes(), split


def test_splits_have_800_100_and_200_rows() -> None:
    assert {split: len(read_pairs(split)) for split in generate.SPLITS} == {
        "train": 800,
        "validation": 100,
        "test": 200,
    }


@pytest.mark.parametrize(
    ("split", "rows_per_call"), [("train", {100}), ("validation", {12, 13}), ("test", {25})]
)
def test_calls_have_equal_shares(split: str, rows_per_call: set[int]) -> None:
    calls = [answer["call"] for _, answer in read_pairs(split)]
    assert set(calls) == set(EXPECTED_KEYS)
    assert {calls.count(call) for call in EXPECTED_KEYS} == rows_per_call


def test_no_request_occurs_twice() -> None:
    requests = [request for split in generate.SPLITS for request, _ in read_pairs(split)]
    assert len({request.lower() for request in requests}) == 1100


@pytest.mark.parametrize("split", generate.SPLITS)
def test_rows_are_system_user_assistant(split: str) -> None:
    for row in generate.generate_split(split):
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
        assert row["messages"][0]["content"] == "Reply with one JSON call."


def test_skeleton_blanks_longest_value_first() -> None:
    answer = {"call": "add_to_list", "item": "tea bags", "quantity": 12, "list": "tea"}
    assert skeleton("Put 12 tea bags on the tea list.", answer) == ("put", "_", "_", "on", "the", "_", "list")


def test_skeleton_blanks_unit_names() -> None:
    answer = {"call": "convert_units", "value": 12, "from": "in", "to": "m"}
    assert skeleton("What's 12 inches in metres?", answer) == ("what's", "_", "_", "in", "_")


@pytest.mark.parametrize(("first", "second"), SPLIT_PAIRS)
def test_splits_share_no_skeleton(first: str, second: str) -> None:
    assert skeletons(first).isdisjoint(skeletons(second))


def test_train_shows_many_phrasings_of_every_call() -> None:
    phrasings = {(answer["call"], skeleton(request, answer)) for request, answer in read_pairs("train")}
    for call in EXPECTED_KEYS:
        assert sum(call == other for other, _ in phrasings) >= 12, call


# A blanked slot counts as one word, so runs of three such as "_ in _" or "the _ _" occur in any English.
@pytest.mark.parametrize(("heldout", "length"), [("validation", 5), ("test", 4)])
def test_heldout_phrasing_shares_no_word_run_with_train(heldout: str, length: int) -> None:
    seen = {run for words in skeletons("train") for run in word_sequences(words, length)}
    for words in skeletons(heldout):
        assert seen.isdisjoint(word_sequences(words, length)), words


@pytest.mark.parametrize(("first", "second"), SPLIT_PAIRS)
def test_splits_share_no_open_value(first: str, second: str) -> None:
    assert open_values(first).isdisjoint(open_values(second))


@pytest.mark.parametrize(("first", "second"), SPLIT_PAIRS)
def test_splits_share_no_number(first: str, second: str) -> None:
    numbers = [
        {int(token) for request, _ in read_pairs(split) for token in re.findall(r"\d+", request)}
        for split in (first, second)
    ]
    assert all(numbers)
    assert numbers[0].isdisjoint(numbers[1])


def test_values_of_test_occur_in_no_train_request() -> None:
    train_requests = "\n".join(request.lower() for request, _ in read_pairs("train"))
    for value in open_values("test"):
        assert not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", train_requests), value


@pytest.mark.parametrize("split", generate.SPLITS)
def test_answers_have_exactly_the_keys_of_their_call(split: str) -> None:
    assert {call: ["call", *keys] for call, keys in generate.CALLS.items()} == EXPECTED_KEYS
    for _, answer in read_pairs(split):
        assert list(answer) == EXPECTED_KEYS[answer["call"]]


@pytest.mark.parametrize("split", generate.SPLITS)
def test_every_value_occurs_once_in_its_request(split: str) -> None:
    for request, answer in read_pairs(split):
        for key, value in answer.items():
            if key != "call":
                text = surface(answer["call"], key, value)
                assert len(re.findall(rf"(?<!\w){re.escape(text)}(?!\w)", request)) == 1, (request, text)


@pytest.mark.parametrize("split", generate.SPLITS)
def test_requests_are_single_lines_with_single_spaces(split: str) -> None:
    for request, _ in read_pairs(split):
        assert request == " ".join(request.split())


@pytest.mark.parametrize("split", generate.SPLITS)
def test_closed_slots_take_only_listed_values(split: str) -> None:
    for _, answer in read_pairs(split):
        for key, value in answer.items():
            if is_closed(answer["call"], key):
                assert value in CLOSED_VOCABULARIES[key]


def test_train_shows_every_closed_value() -> None:
    answers = [answer for _, answer in read_pairs("train")]
    for key, vocabulary in CLOSED_VOCABULARIES.items():
        seen = {answer[key] for answer in answers if key in answer and is_closed(answer["call"], key)}
        assert seen == vocabulary, key
