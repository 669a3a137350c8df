"""Repetition, garbled characters and copies, with shares counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.quality.measures import count_visible, measure_copy, measure_garble, measure_repetition

DISTINCT = " ".join(f"w{number}" for number in range(30))


def test_white_space_is_no_character() -> None:
    assert count_visible(" a\n b\u3000c\t") == 3
    assert count_visible(" \n") == 0


def test_distinct_words_do_not_repeat() -> None:
    assert measure_repetition(DISTINCT) == 0.0


def test_repeated_trigrams_cover_their_words_once() -> None:
    # a b c d a b c d: the 3-grams abc and bcd occur twice and cover these 8 words; 24 others are unique.
    text = "a b c d A b c D " + " ".join(f"w{number}" for number in range(24))
    assert measure_repetition(text) == 8 / 32


def test_two_repeated_words_are_no_trigram() -> None:
    assert measure_repetition("a b x a b y " + DISTINCT) == 0.0


def test_a_loop_covers_everything() -> None:
    assert measure_repetition("I am sorry. " * 10) == 1.0


def test_short_answers_may_repeat() -> None:
    assert measure_repetition("no no no " * 6 + "no") == 0.0
    assert measure_repetition("no no no " * 6 + "no no") == 1.0


def test_unspaced_text_is_measured_by_characters() -> None:
    first = "".join(chr(0x4E00 + number) for number in range(80))
    assert measure_repetition(first) == 0.0
    # The last 20 characters repeat the first 20: 40 of 100 are covered.
    assert measure_repetition(first + first[:20]) == 0.4
    assert measure_repetition("ha" * 30) == 1.0
    assert measure_repetition("ha" * 29) == 0.0


def test_garbled_characters_are_counted() -> None:
    assert measure_garble("ab\ufffd\x00\x85\ue000\u0378\ud800xy") == 6 / 10
    assert measure_garble("\ufffd") == 1.0


def test_what_writers_use_is_not_garbled() -> None:
    assert measure_garble("a\tb\r\nc é 日本 👩\u200d👩 \u00a0\u2028") == 0.0
    assert measure_garble("") == 0.0


def test_a_copied_answer_stands_in_its_prompt() -> None:
    assert measure_copy("The quick brown fox jumps", ["see: the quick Brown fox jumps over"]) == 1.0


def test_a_copy_is_a_share_of_the_answers_ngrams() -> None:
    # 8 words have 4 5-grams, of which the first 2 (a-e, b-f) stand in the prompt.
    assert measure_copy("a b c d e f x y", ["a b c d e f g"]) == 0.5


def test_ngrams_do_not_span_turns() -> None:
    assert measure_copy("a b c d e", ["a b c", "d e"]) == 0.0


def test_answers_under_five_words_may_copy() -> None:
    assert measure_copy("a b c d", ["a b c d"]) == 0.0


def test_unspaced_copies_are_found() -> None:
    text = "".join(chr(0x4E00 + number) for number in range(20))
    assert measure_copy(text, [f"{text}。"]) == 1.0
    # Of the 11 10-grams the first 6 lie in the first 15 characters.
    assert measure_copy(text, [text[:15]]) == 6 / 11


@given(st.text(alphabet=st.characters(), max_size=300), st.text(max_size=50), st.integers(0, 9))
def test_shares_lie_between_zero_and_one(text: str, prompt: str, times: int) -> None:
    text *= times
    for share in (measure_repetition(text), measure_garble(text), measure_copy(text, [prompt, text])):
        assert 0.0 <= share <= 1.0


@pytest.mark.parametrize("text", ["", " ", "\ud800", "x" * 1000])
def test_odd_texts_have_a_share(text: str) -> None:
    assert measure_copy(text, []) == 0.0
