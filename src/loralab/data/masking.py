"""From rendered text to token ids and the token ranges to learn, in one tokenization."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from loralab.data.records import Conversation
from loralab.data.templating import Rendered
from loralab.data.word_tokens import WordTokens

IGNORE_INDEX = -100
"""The label of a token that is not learned."""

TokenSpan = tuple[int, int, float]
"""Tokens [start, end) to learn and their weight in the loss."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as token ids and the ranges of them to learn."""

    input_ids: list[int]
    """Token ids of the whole text."""
    spans: tuple[TokenSpan, ...]
    """Ranges to learn, in order, without overlap."""

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss will see; the first token of a text can never be predicted."""
        return sum(end - max(start, 1) for start, end, _ in self.spans if end > 1)


@dataclass(frozen=True)
class Example:
    """One conversation as token ids and labels of equal length."""

    input_ids: list[int]
    """Token ids of the whole conversation."""
    labels: list[int]
    """The token's own id where it is learned, else `IGNORE_INDEX`; the shift by one is the loss's."""
    conversation: Conversation
    """What it was made of."""
    weights: list[float] | None = None
    """Weight of each token in the loss; None where every learned token has weight 1."""
    source: int = 0
    """Number of the source that it came from."""

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss will see; the first token of a text can never be predicted."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])

    @property
    def loss_weight(self) -> float:
        """Sum of the weights of the tokens that the loss will see."""
        if self.weights is None:
            return float(self.num_supervised)
        pairs = zip(self.labels[1:], self.weights[1:], strict=True)
        return sum(weight for label, weight in pairs if label != IGNORE_INDEX)


def make_example(encoded: Encoded, conversation: Conversation, source: int = 0) -> Example:
    """Writes the ranges to learn out as labels, and as weights where any is not 1."""
    labels = [IGNORE_INDEX] * len(encoded.input_ids)
    weights = [0.0] * len(encoded.input_ids)
    for start, end, weight in encoded.spans:
        labels[start:end] = encoded.input_ids[start:end]
        weights[start:end] = [weight] * (end - start)
    plain = all(weight == 1 for _, _, weight in encoded.spans)
    return Example(encoded.input_ids, labels, conversation, None if plain else weights, source)


def encode(
    tokenizer: PreTrainedTokenizerBase, rendered: Sequence[Rendered], words: WordTokens | None = None
) -> list[Encoded]:
    """Tokenizes rendered conversations once each and finds the tokens of their supervised spans.

    Args:
        tokenizer: A fast tokenizer.
        rendered: The texts and their spans.
        words: The same tokenizer word by word, which is faster for many texts; the result is the same.
    """
    backend = tokenizer.backend_tokenizer
    # As a call of the tokenizer does; some come with a truncation of their own.
    backend.no_truncation()
    backend.no_padding()
    known = [None if words is None else _encode_words(words, item) for item in rendered]
    texts = [item.text for item, found in zip(rendered, known, strict=True) if found is None]
    encodings = iter(backend.encode_batch(texts, add_special_tokens=False) if texts else ())
    return [
        _encoded(next(encodings), item) if found is None else found
        for item, found in zip(rendered, known, strict=True)
    ]


def _encode_words(words: WordTokens, rendered: Rendered) -> Encoded | None:
    """Returns None where the tokens of the spans can only be told by their offsets."""
    borders = [border for span in rendered.spans for border in span]
    found = words.tokenize(rendered.text, borders) if words.covers(rendered.text) else None
    if found is None:
        return None
    ids, counts = found
    spans = zip(counts[::2], counts[1::2], rendered.weights, strict=True)
    return Encoded(ids, tuple((start, end, weight) for start, end, weight in spans if start < end))


def _encoded(encoding: Encoding, rendered: Rendered) -> Encoded:
    return Encoded(encoding.ids, token_spans(encoding, rendered))


def token_spans(encoding: Encoding, rendered: Rendered) -> tuple[TokenSpan, ...]:
    """Finds the tokens whose text lies in each supervised span.

    White space that a tokenizer glues to the front of a token does not count: a token that holds the
    space before a span and the span's first word is learned. A token that holds other text from outside
    the span is not.

    Args:
        encoding: The tokenized text, with offsets in characters.
        rendered: The text, its supervised spans and their weights.
    """
    found: list[TokenSpan] = []
    for (low, high), weight in zip(rendered.spans, rendered.weights, strict=True):
        first = _first_token(encoding, rendered.text, low, high)
        end = _end_token(encoding, low, high)
        if first is not None and end is not None and first < end:
            found.append((first, end, weight))
    return tuple(found)


def _first_token(encoding: Encoding, text: str, low: int, high: int) -> int | None:
    # A tokenizer may trim white space off the offsets of its tokens, so that no token holds it.
    tokens = (encoding.char_to_token(place) for place in range(low, high))
    first = next((token for token in tokens if token is not None), None)
    while first is not None and first < len(encoding):
        start, end = encoding.token_to_chars(first) or (low, low)
        token = text[start:end]
        start += len(token) - len(token.lstrip()) if token.strip() else 0
        if start >= low:
            return first
        first += 1
    return None


def _end_token(encoding: Encoding, low: int, high: int) -> int | None:
    tokens = (encoding.char_to_token(place) for place in range(high - 1, low - 1, -1))
    last = next((token for token in tokens if token is not None), None)
    if last is None:
        return None
    # A character of several bytes can be several tokens, of which char_to_token names the first.
    while last + 1 < len(encoding) and _starts_before(encoding, last + 1, high):
        last += 1
    straddles = (encoding.token_to_chars(last) or (low, high))[1] > high
    return last if straddles else last + 1


def _starts_before(encoding: Encoding, token: int, high: int) -> bool:
    chars = encoding.token_to_chars(token)
    return chars is not None and chars[0] < high and chars[0] < chars[1]
