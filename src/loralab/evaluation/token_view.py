"""An example token by token: what each token says, and whether it is learned."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text
from transformers import PreTrainedTokenizerBase

from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.templating import special_tokens

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
PART_OF_CHARACTER = "⋯"
CHARACTER_BYTES = 4
"""Bytes, and so tokens, that a character of UTF-8 has at most."""
GLYPHS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
LEARNED_STYLE, SPECIAL_STYLE = "bold black on green", "dim"


@dataclass(frozen=True, slots=True)
class TokenBox:
    """One token of an example."""

    text: str
    """What it adds to the text; empty where it is the first part of a character that the next ones finish."""
    token_id: int
    """Its id."""
    label: int
    """Its label: its own id, or `IGNORE_INDEX`."""
    weight: float
    """Its weight in the loss; 0 where it is not learned."""
    position: int
    """Its place in the example, from 0."""
    is_special: bool
    """Whether it is a special token, which no text of a row can write."""

    @property
    def is_learned(self) -> bool:
        """Whether the loss sees it; the first token of a text can never be predicted."""
        return self.label != IGNORE_INDEX and self.position > 0

    @property
    def shown(self) -> str:
        """The text with white space and control characters made visible."""
        return "".join(map(_glyph, self.text)) or PART_OF_CHARACTER

    @property
    def facts(self) -> str:
        """Id, label, weight and position in a line."""
        return f"id {self.token_id} · label {self.label} · weight {self.weight:g} · position {self.position}"


def token_boxes(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[TokenBox]:
    """Lists the tokens of an example."""
    special = frozenset(special_tokens(tokenizer).values())
    texts = token_texts(tokenizer, example.input_ids)
    boxes = []
    for position, (text, token_id, label) in enumerate(
        zip(texts, example.input_ids, example.labels, strict=True)
    ):
        learned = label != IGNORE_INDEX
        weight = example.weights[position] if example.weights is not None else 1.0
        boxes.append(
            TokenBox(text, token_id, label, weight if learned else 0.0, position, token_id in special)
        )
    return boxes


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Returns what each token adds to the decoded text; joined they are the whole text.

    A token is decoded behind the one before it, because some tokenizers drop a space at the front of a text.
    Where a character is spread over several tokens the last of them has it and the others are empty.
    """
    texts: list[str] = []
    start = read = 0
    for end in range(1, len(ids) + 1):
        before, both = _decode(tokenizer, ids[start:read]), _decode(tokenizer, ids[start:end])
        if both.endswith(UNFINISHED) and end < len(ids) and end - read < CHARACTER_BYTES:
            texts.append("")
            continue
        texts.append(both[len(before) :])
        start, read = read, end
    return texts


def clip_tokens(boxes: Sequence[TokenBox], most: int) -> tuple[Sequence[TokenBox], int, Sequence[TokenBox]]:
    """Keeps the first and the last tokens of a long example, and says how many are left out between."""
    if len(boxes) <= most:
        return boxes, 0, ()
    head = most // 2
    return boxes[:head], len(boxes) - most, boxes[len(boxes) - (most - head) :]


def as_terminal_text(boxes: Sequence[TokenBox], most: int) -> Text:
    """Writes an example as the model reads it, what is learned in colour.

    Args:
        boxes: Its tokens.
        most: Tokens shown; the middle of a longer example is left out.
    """
    head, skipped, tail = clip_tokens(boxes, most)
    text = Text()
    for box in head:
        _append(text, box)
    if skipped:
        text.append(f"\n… {skipped:,} tokens …\n", "italic dim")
    for box in tail:
        _append(text, box)
    return text


def printable(text: str) -> str:
    """Makes control characters and others that a terminal would obey or cannot show visible."""
    return "".join(character if character in " \n" else _glyph(character) for character in text)


def _append(text: Text, box: TokenBox) -> None:
    style = LEARNED_STYLE if box.is_learned else SPECIAL_STYLE if box.is_special else ""
    text.append(printable(box.text), style)


def _glyph(character: str) -> str:
    if character in GLYPHS:
        return GLYPHS[character]
    return character if character.isprintable() else f"⟨U+{ord(character):04X}⟩"


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
