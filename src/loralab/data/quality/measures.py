"""Measures of one text: repetition, garbled characters, overlap with a prompt."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

REPETITION_WORDS = 3
"""Words of an n-gram whose repetition is measured."""
COPY_WORDS = 5
"""Words of an n-gram that is looked up in the prompt."""
UNSPACED_CHARS = 10
"""Characters of an n-gram where a text has no spaces between its words."""
MIN_REPETITION_WORDS = 20
"""Answers with fewer words are exempt from the measure of repetition."""
MIN_REPETITION_CHARS = 60
"""Unspaced answers with fewer characters are exempt from the measure of repetition."""
MAX_MEAN_WORD_CHARS = 15
"""Mean length of a word from which a text counts as unspaced, such as Chinese, Thai or one endless word."""

_GARBLED_CATEGORIES = ("Cc", "Cs", "Co", "Cn")


def count_visible(text: str) -> int:
    """Counts the characters of a text that are no white space."""
    return sum(map(len, text.split()))


def measure_repetition(text: str) -> float:
    """Returns the share of a text's words that stand in a word 3-gram which occurs more than once.

    Words are separated by white space and compared without case; a word under several repeated
    n-grams counts once. It is a relative of the "fraction of characters in duplicate n-grams" of
    Gopher (Rae et al. 2021, arXiv:2112.11446, table A1). An unspaced text is measured by the share of
    its characters in repeated character 10-grams. Texts under 20 words (60 characters) have 0.
    """
    units, size = _split_units(text, REPETITION_WORDS)
    if len(units) < (MIN_REPETITION_WORDS if size == REPETITION_WORDS else MIN_REPETITION_CHARS):
        return 0.0
    ngrams = _ngrams(units, size)
    counts = Counter(ngrams)
    covered, end = 0, 0
    for start, ngram in enumerate(ngrams):
        if counts[ngram] > 1:
            covered += start + size - max(start, end)
            end = start + size
    return covered / len(units)


def measure_garble(text: str) -> float:
    r"""Returns the share of a text's characters that no writer meant.

    These are U+FFFD, control characters other than `\t`, `\n` and `\r`, private-use and unassigned code
    points, and lone surrogates.
    """
    plain = text.replace("\n", "").replace("\t", "").replace("\r", "")
    garbled = plain.count("\ufffd")
    if not plain.isprintable():
        garbled += sum(unicodedata.category(char) in _GARBLED_CATEGORIES for char in plain)
    return garbled / len(text) if garbled else 0.0


def measure_copy(answer: str, prompt: Iterable[str]) -> float:
    """Returns the share of the answer's word 5-grams that also stand in one of the prompt's texts.

    Words are compared without case. An unspaced answer is measured by its character 10-grams. Answers
    shorter than one n-gram have 0.
    """
    units, size = _split_units(answer, COPY_WORDS)
    ngrams = _ngrams(units, size)
    if not ngrams:
        return 0.0
    split = _split_words if size == COPY_WORDS else _split_chars
    known = {ngram for text in prompt for ngram in _ngrams(split(text), size)}
    return sum(ngram in known for ngram in ngrams) / len(ngrams)


def _split_units(text: str, num_words: int) -> tuple[Sequence[str], int]:
    """Returns the words or, of an unspaced text, the characters, and the n of their n-grams."""
    words = _split_words(text)
    if sum(map(len, words)) > MAX_MEAN_WORD_CHARS * len(words):
        return _split_chars(text), UNSPACED_CHARS
    return words, num_words


def _split_words(text: str) -> Sequence[str]:
    return text.casefold().split()


def _split_chars(text: str) -> Sequence[str]:
    return "".join(_split_words(text))


def _ngrams(units: Sequence[str], size: int) -> list[str] | list[tuple[str, ...]]:
    if isinstance(units, str):
        return [units[start : start + size] for start in range(len(units) - size + 1)]
    return list(zip(*(units[offset:] for offset in range(size)), strict=False))
