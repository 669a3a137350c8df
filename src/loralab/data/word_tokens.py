"""Token ids of texts put together from the ids of their words, each of which is tokenized once."""

import json
import re
from collections.abc import Sequence
from itertools import accumulate, chain, product
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

MAX_WORDS = 2**14
"""Words that are remembered; about 200 bytes each."""
MAX_WORD_CHARS = 64

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# What comes before a digit ends there, for the white space that looks ahead as well.
_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\d])|\s+"
_SPLITS = tuple(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}", r"\p{N}{1,3}")
)
"""As Qwen 2 and Llama 3 write their patterns."""

# Everything up to the next white space, where a character beyond ASCII is among it: which classes such
# characters belong to is left to the tokenizer.
_BEYOND_ASCII = r"(?: |(?<!\S))[^\s\x80-\U0010ffff]*[\x80-\U0010ffff]\S*"
_ANY_WORDS = {
    _GPT2: _BEYOND_ASCII,
    # White space in front of a number stays whole, and numbers are such a class.
    _DIGITS: _BEYOND_ASCII.replace("(?: ", r"(?:\s\s+| "),
}
_WIDE_SPACE = re.compile("[\x85\xa0\u1680\u180e\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_PROBE_CHARS = " \n\ts5'."


class WordTokens:
    """Tokenizes as a byte-level BPE tokenizer does, and remembers the ids of every word.

    Such a tokenizer cuts a text at its added tokens, then into words by a regular expression, and merges
    inside of a word only (Radford et al. 2019, section 2.2), so that a word has the same ids wherever it
    stands. Words are found here for the expressions of GPT-2, SmolLM2, Qwen 2 and Llama 3.
    """

    def __init__(self, backend: Tokenizer) -> None:
        """Reads how the tokenizer cuts texts; `covers` tells whether words can be found in the same way."""
        # A word must come out as it is.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        added = {str(token.content): number for number, token in backend.get_added_tokens_decoder().items()}
        longest_first = "|".join(map(re.escape, sorted(added, key=len, reverse=True)))
        self._added = re.compile(f"({longest_first or '(?!)'})")
        self._ids_of = _WordIds(backend)
        self._ids_of.update((token, (number,)) for token, number in added.items())
        pattern, has_normalizer = _word_pattern(backend), backend.normalizer is not None
        as_ascii = (pattern or "(?!)").replace(r"\p{L}\p{N}", "a-zA-Z0-9")
        as_ascii = as_ascii.replace(r"\p{L}", "[a-zA-Z]").replace(r"\p{N}", "[0-9]")
        self._ascii_word = re.compile(as_ascii, re.ASCII)
        # In the other expressions a word may begin or end with white space of the text around it.
        beyond = None if has_normalizer else _ANY_WORDS.get(pattern or "")
        self._any_word = None if beyond is None else re.compile(f"{beyond}|{as_ascii}", re.ASCII)
        self._is_known = pattern is not None and _is_plain(backend) and self._agrees()

    def __reduce__(self) -> tuple[type["WordTokens"], tuple[Tokenizer]]:
        """Another process remembers words of its own."""
        return WordTokens, (self._backend,)

    def covers(self, text: str) -> bool:
        """Whether `tokenize` can take the text."""
        if not self._is_known or text.isascii():
            return self._is_known
        return self._any_word is not None and not _WIDE_SPACE.search(text)

    def tokenize(self, text: str, borders: Sequence[int]) -> tuple[list[int], list[int]] | None:
        """Returns the token ids of a text, and how many of them stand before each border.

        Args:
            text: A text that `covers` approves.
            borders: Places in the text, in characters and in order.

        Returns:
            None where a border falls inside of a word.
        """
        find = (
            self._ascii_word.findall if text.isascii() or self._any_word is None else self._any_word.findall
        )
        ids: list[int] = []
        counts: list[int] = []
        start = 0
        for number, piece in enumerate(self._added.split(text)):
            words = (piece,) if number % 2 else find(piece)
            end = start + len(piece)
            while len(counts) < len(borders) and borders[len(counts)] < end:
                count = self._count_before(words, borders[len(counts)] - start)
                if count is None:
                    return None
                counts.append(len(ids) + count)
            ids += chain.from_iterable(map(self._ids_of.__getitem__, words))
            start = end
        return ids, counts + [len(ids)] * (len(borders) - len(counts))

    def _count_before(self, words: Sequence[str], place: int) -> int | None:
        count = length = 0
        for word in words:
            if length >= place:
                break
            length, count = length + len(word), count + len(self._ids_of[word])
        return count if length == place else None

    def _agrees(self) -> bool:
        """Checks that words end where the tokenizer's own do, for characters of every kind that meet."""
        probe = "".join(map("".join, product(_PROBE_CHARS, repeat=3))) + "a".join(map(chr, range(128)))
        if self._ends(self._ascii_word, probe) != self._own_ends(probe):
            return False
        any_word = self._any_word
        if any_word is None:
            return True
        others = (probe.replace("s", letter) for letter in "é²")
        return all(self._ends(any_word, other) <= self._own_ends(other) for other in others)

    def _own_ends(self, text: str) -> set[int]:
        return {end for _, (_, end) in self._backend.pre_tokenizer.pre_tokenize_str(text)}

    def _ends(self, word: re.Pattern[str], text: str) -> set[int]:
        return set(accumulate(map(len, word.findall(text))))


class _WordIds(dict[str, tuple[int, ...]]):
    """The ids of words, tokenized when they are first asked for."""

    def __init__(self, backend: Tokenizer) -> None:
        super().__init__()
        self._backend, self._model = backend, backend.model
        alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        ((written, _),) = alphabet.pre_tokenize_str("".join(map(chr, range(128))))
        self._written_bytes = str.maketrans(dict(enumerate(written)))

    def __missing__(self, word: str) -> tuple[int, ...]:
        if word.isascii():
            # The merges alone, a third of the time: nothing else has a part in the ids of such a word.
            ids = tuple(token.id for token in self._model.tokenize(word.translate(self._written_bytes)))
        else:
            ids = tuple(self._backend.encode(word, add_special_tokens=False).ids)
        if len(self) < MAX_WORDS and len(word) <= MAX_WORD_CHARS:
            self[word] = ids
        return ids


def _word_pattern(backend: Tokenizer) -> str | None:
    """Returns the regular expression that a tokenizer finds words with, if it is a known one."""
    if backend.pre_tokenizer is None:
        return None
    steps = _state(backend.pre_tokenizer)
    match steps.get("pretokenizers", [steps]):
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return _GPT2
        case [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        ]:
            return _DIGITS
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern if pattern in _SPLITS else None
    return None


def _is_plain(backend: Tokenizer) -> bool:
    """Whether nothing but added tokens, words and merges decides on ids and their places in the text."""
    model, added = backend.model, backend.get_added_tokens_decoder().values()
    if not isinstance(model, models.BPE) or model.dropout:
        return False
    if model.continuing_subword_prefix or model.end_of_word_suffix or model.byte_fallback:
        return False
    if any(token.lstrip or token.rstrip or token.single_word or token.normalized for token in added):
        return False
    # Composed characters are composed already in a text of ASCII, the only one that is taken then.
    is_normal = backend.normalizer is None or isinstance(backend.normalizer, normalizers.NFC)
    return is_normal and not backend.encode_special_tokens and _keeps_places(backend.post_processor)


def _keeps_places(processor: Any) -> bool:
    if processor is None or isinstance(processor, processors.TemplateProcessing):
        return True
    steps = _state(processor)
    return all(
        step["type"] == "TemplateProcessing" or (step["type"] == "ByteLevel" and not step["trim_offsets"])
        for step in steps.get("processors", [steps])
    )


def _state(part: Any) -> dict[str, Any]:
    """The part as the tokenizer's own file describes it."""
    state: dict[str, Any] = json.loads(part.__getstate__())
    return state
