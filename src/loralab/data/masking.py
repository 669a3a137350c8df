"""From rendered text to token ids and labels, in one tokenization."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from loralab.data.records import Conversation
from loralab.data.templating import Rendered

IGNORE_INDEX = -100
"""The label of a token that is not learned."""


@dataclass(frozen=True)
class Example:
    """One conversation as token ids and labels of equal length."""

    input_ids: list[int]
    """Token ids of the whole conversation."""
    labels: list[int]
    """The token's own id where it is learned, else `IGNORE_INDEX`; the shift by one is the loss's."""
    conversation: Conversation
    """What it was made of."""

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss will see; the first token of a text can never be predicted."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


def encode(
    tokenizer: PreTrainedTokenizerBase, rendered: Sequence[Rendered], conversations: Sequence[Conversation]
) -> list[Example]:
    """Tokenizes rendered conversations once each and derives the labels from their character spans."""
    if not rendered:
        return []
    batch = tokenizer([item.text for item in rendered], add_special_tokens=False, return_offsets_mapping=True)
    return [
        Example(ids, labels_from_spans(ids, offsets, item), conversation)
        for ids, offsets, item, conversation in zip(
            batch["input_ids"], batch["offset_mapping"], rendered, conversations, strict=True
        )
    ]


def labels_from_spans(
    input_ids: Sequence[int], offsets: Sequence[tuple[int, int]], rendered: Rendered
) -> list[int]:
    """Labels the tokens whose text lies in a supervised span.

    White space that a tokenizer glues to the front of a token does not count: a token that holds the
    space before a span and the span's first word is learned. A token without any text of its own (white
    space whose offsets a tokenizer trims away) is learned between two learned tokens.

    Args:
        input_ids: Token ids.
        offsets: Character range [start, end) of each token.
        rendered: The text and its supervised spans.
    """
    labels = [IGNORE_INDEX] * len(input_ids)
    for position, (start, end) in enumerate(offsets):
        token = rendered.text[start:end]
        start += len(token) - len(token.lstrip()) if token.strip() else 0
        if any(start < end and low <= start and end <= high for low, high in rendered.spans):
            labels[position] = input_ids[position]
    learned = [label != IGNORE_INDEX for label in labels]
    for position, (start, end) in enumerate(offsets):
        if start < end or position == 0:
            continue
        follower = next((at for at in range(position, len(offsets)) if offsets[at][0] < offsets[at][1]), 0)
        if learned[position - 1] and learned[follower]:
            labels[position], learned[position] = input_ids[position], True
    return labels
