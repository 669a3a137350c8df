"""Rows that say the same: to the letter (content keys), or nearly so (MinHash)."""

import json
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, shake_256

import numpy as np
from numpy.typing import NDArray

from loralab.data.records import LabelledConversation, Message, PreferencePair, Record, all_messages

KEY_BYTES = 16
SHINGLE_WORDS = 5
CONTEXT_END = "\x1e"
RECALL = 0.95
MAX_PIVOTS = 64
CHUNK_SHINGLES = 4096

# Scripts without spaces count one word per character; marks that `\w` leaves out belong to their word;
# 64 characters at most, so that a pasted blob neither fills the cache of word hashes nor counts as one word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(f"[{_UNSPACED}]|(?:[^\\W_{_UNSPACED}]|[{_MARKS}]){{1,64}}")
_ASCII_WORD = re.compile("[a-z0-9]{1,64}")


def content_key(record: Record) -> bytes:
    """Hashes all that a record says: equal records, and only they, share the 16 bytes.

    Every turn's role, name, content, reasoning and calls count, the tools, the rejected turns of a pair and a
    label; weights, source and row do not. The hashed text is JSON, whose quotes and brackets keep the fields
    apart. Two of 2 million different records collide with a probability of 6e-27.
    """
    parts: list[object] = [type(record).__name__, _fields(record.messages), record.tools]
    if isinstance(record, PreferencePair):
        parts += [len(record.prompt), _fields(record.rejected)]
    elif isinstance(record, LabelledConversation):
        parts.append(record.label)
    return blake2b(_json(parts).encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def _fields(messages: Sequence[Message]) -> list[object]:
    return [
        (
            m.role,
            m.name,
            m.content,
            m.reasoning,
            m.tool_call_id,
            [(c.name, c.arguments, c.id) for c in m.tool_calls],
        )
        for m in messages
    ]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


class ExactDuplicates:
    """Remembers the first row of every content key, in 22 to 30 bytes per row.

    A hash table with linear probing in flat arrays: 16 bytes for a row's key and 6 to 12 for its slots.
    """

    def __init__(self) -> None:
        self._keys = bytearray()
        self._slots = array("I", bytes(4 * 1024))

    def __len__(self) -> int:
        """Rows added so far, duplicates included."""
        return len(self._keys) // KEY_BYTES

    def add(self, key: bytes) -> int | None:
        """Adds the next row, given its content key; rows are numbered from 0 in the order of the calls.

        Returns:
            The number of the first row with the same key; None where this is the first.
        """
        if 3 * len(self) >= 2 * len(self._slots):
            self._grow()
        slot, first = self._probe(key)
        self._keys += key
        if first is None:
            self._slots[slot] = len(self)
        return first

    def _probe(self, key: bytes | bytearray) -> tuple[int, int | None]:
        mask = len(self._slots) - 1
        slot = int.from_bytes(key[:8], "little") & mask
        while entry := self._slots[slot]:
            if self._keys[KEY_BYTES * (entry - 1) : KEY_BYTES * entry] == key:
                return slot, entry - 1
            slot = (slot + 1) & mask
        return slot, None

    def _grow(self) -> None:
        old, self._slots = self._slots, array("I", bytes(8 * len(self._slots)))
        for entry in filter(None, old):
            slot, _ = self._probe(self._keys[KEY_BYTES * (entry - 1) : KEY_BYTES * entry])
            self._slots[slot] = entry


def split_prompt(record: Record) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Returns the turns that are given, and the last assistant turn or both continuations of a pair."""
    if isinstance(record, PreferencePair):
        return record.prompt, record.chosen + record.rejected
    answer = len(record.messages) - (record.messages[-1].role == "assistant")
    return record.messages[:answer], record.messages[answer:]


def prompt_text(record: Record) -> str:
    """Returns what near duplicates by prompt compare: the turns before the answer, or all where none are."""
    prompt, answer = split_prompt(record)
    return _text(prompt or answer)


def conversation_text(record: Record) -> str:
    """Returns what near duplicates by conversation compare: every turn, rejected ones included."""
    return _text(all_messages(record))


def _text(messages: Sequence[Message]) -> str:
    turns = [message for message in messages if message.role != "system"]
    body = "\n".join(map(_spoken, turns or messages)).replace(CONTEXT_END, " ")
    context = "\n".join(message.content for message in messages if message.role == "system") if turns else ""
    return context + CONTEXT_END + body if context else body


def _spoken(message: Message) -> str:
    calls = (f"{call.name} {_json(call.arguments)}" for call in message.tool_calls)
    return "\n".join(filter(None, [message.reasoning, message.content, *calls]))


def words(text: str) -> list[str]:
    """Returns the words of a text, lower-cased and without punctuation."""
    lowered = text.lower()
    return (_ASCII_WORD if lowered.isascii() else _WORD).findall(lowered)


def word_hashes(sequence: Sequence[str]) -> NDArray[np.uint64]:
    """Returns a 64-bit hash for every word, the same in every process."""
    return np.fromiter(map(_hash_word, sequence), np.uint64, len(sequence))


def hash_text(text: str) -> int:
    """Returns a 64-bit hash, the same in every process."""
    return hash_bytes(text.encode("utf-8", "surrogatepass"))


def hash_bytes(data: bytes) -> int:
    """Returns a 64-bit hash, the same in every process."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


_hash_word = lru_cache(maxsize=2**16)(hash_text)


def ngram_hashes(hashes: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """Returns a 64-bit hash for every run of `size` words: a sum modulo 2^64 with odd factors by place.

    For two different n-grams, some word's hash has a factor `d` other than 0 in the difference of the sums,
    which is then uniform over the multiples of the largest power of two in `d`; `d` is random, so that power
    is rarely large, and n-grams collide with a probability of about 2^-60. There must be `size` words.
    """
    return np.convolve(hashes, _factors(size), "valid")


@lru_cache(maxsize=64)
def _factors(count: int) -> NDArray[np.uint64]:
    return np.frombuffer(shake_256(b"factors").digest(8 * count), np.uint64) | np.uint64(1)


def shingles(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the hashes of the word 5-grams (Broder 1997), of all words as one where they are fewer."""
    if len(hashes) < SHINGLE_WORDS:
        return np.array([hash_bytes(hashes.tobytes())], np.uint64)
    return ngram_hashes(hashes, SHINGLE_WORDS)


class MinHasher:
    """Turns sets of shingles into what finds and checks near duplicates: band keys and sketches.

    MinHash: the least value under a random permutation is the same for two sets with a probability of their
    Jaccard similarity `J` (Broder 1997, "On the resemblance and containment of documents"). With `b` bands of
    `r` values, two sets share a band with probability `1 - (1 - J^r)^b` (Indyk and Motwani 1998): `r` is the
    largest that finds 95% of the pairs at the threshold. A sketch keeps 8 bits of every value: a share `P` of
    equal bytes estimates `J = (P - C) / (1 - C)` with `C = 2^-8` (b-bit minwise hashing, arXiv:0910.3349).
    """

    def __init__(self, threshold: float, num_perm: int, seed: int = 1) -> None:
        """Chooses the bands for a Jaccard similarity above 0, to 1, and a number of permutations."""
        from datasketch import MinHash  # here, because it loads scipy for what few runs ask

        self._minhash = MinHash(num_perm, seed, hashfunc=int)
        sizes = range(1, num_perm + 1)
        fits = [r for r in sizes if 1 - (1 - threshold**r) ** (num_perm // r) >= RECALL]
        self.band_size = max(fits, default=1)
        """Values of a band."""
        self.num_bands = num_perm // self.band_size
        """Band keys of a set."""
        chance = 2.0**-8
        self.min_equal = math.ceil(num_perm * (chance + (1 - chance) * threshold) - 1e-9)
        """Equal bytes of two sketches from which the estimated similarity reaches the threshold."""

    def sketch(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """Returns band keys `[num_bands]` and the sketch `[num_perm]` of a set of at least one shingle."""
        high_bits = (hashes >> np.uint64(32)).tolist()
        self._minhash.clear()
        for start in range(0, len(high_bits), CHUNK_SHINGLES):
            self._minhash.update_batch(high_bits[start : start + CHUNK_SHINGLES])
        values = self._minhash.hashvalues.astype(np.uint64)
        size = self.num_bands * self.band_size
        mixed = (values[:size] * _factors(size)).reshape(self.num_bands, self.band_size).sum(axis=1)
        # The top byte of a product depends on every bit of the value; its own low byte does not.
        folded = (values.astype(np.uint32) * np.uint32(0x9E3779B1)) >> np.uint32(24)
        return (mixed >> np.uint64(32)).astype(np.uint32), folded.astype(np.uint8)


def near_duplicate_clusters(
    texts: Iterable[str], threshold: float, num_perm: int, seed: int = 1
) -> list[int]:
    """Joins texts whose estimated Jaccard similarity of word 5-grams reaches a threshold, also in chains.

    What stands before U+001E in a text is its context: only texts of one context are compared. At threshold
    0.8 with 128 permutations a text takes 72 bytes for its bands, 128 for its sketch and about 80 for sorting
    and joining, where datasketch's MinHashLSH would take kilobytes. When more than 64 unlike texts share a
    band, the others are compared with 64 of them only.

    Args:
        texts: Texts to compare, read once.
        threshold: Jaccard similarity from which two are near duplicates; above 0, to 1.
        num_perm: MinHash permutations.
        seed: Seed of the permutations.

    Returns:
        For every text the index of the first text of its cluster.
    """
    hasher = MinHasher(threshold, num_perm, seed)
    keys, folded = bytearray(), bytearray()
    for text in texts:
        band_keys, sketch = hasher.sketch(_text_shingles(text))
        keys += band_keys.tobytes()
        folded += sketch.tobytes()
    num_texts = len(folded) // num_perm
    parents = array("q", range(num_texts))
    sketches = np.frombuffer(folded, np.uint8).reshape(num_texts, num_perm)
    for column in np.frombuffer(keys, np.uint32).reshape(num_texts, hasher.num_bands).T:
        for bucket in _buckets(column):
            _join_alike(bucket, sketches, hasher.min_equal, parents)
    return [_root(parents, index) for index in range(num_texts)]


def _text_shingles(text: str) -> NDArray[np.uint64]:
    context, _, body = text.rpartition(CONTEXT_END)
    hashes = word_hashes(words(body))
    # Without a word, "???" and "!!!" would be the same empty text.
    found = shingles(hashes) if len(hashes) else np.array([hash_text(body.strip())], np.uint64)
    return found ^ np.uint64(hash_text(context)) if context else found


def _buckets(keys: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    bounds = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1], [True])))
    for index in np.flatnonzero(np.diff(bounds) > 1):
        yield order[bounds[index] : bounds[index + 1]]


def _join_alike(
    bucket: NDArray[np.int64], sketches: NDArray[np.uint8], min_equal: int, parents: "array[int]"
) -> None:
    if len({_root(parents, member) for member in bucket.tolist()}) == 1:
        return
    for _ in range(MAX_PIVOTS):
        pivot, bucket = bucket[0], bucket[1:]
        alike = np.count_nonzero(sketches[bucket] == sketches[pivot], axis=1) >= min_equal
        for member in bucket[alike].tolist():
            first, second = sorted((_root(parents, int(pivot)), _root(parents, member)))
            parents[second] = first
        bucket = bucket[~alike]
        if len(bucket) <= 1:
            return


def _root(parents: "array[int]", index: int) -> int:
    while (parent := parents[index]) != index:
        parents[index] = parents[parent]
        index = parents[index]
    return index
