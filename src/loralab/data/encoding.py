"""From checked records to examples: rendered, tokenized, masked, fitted and gated, a chunk at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.data.contamination import Overlap, OverlapIndex
from loralab.data.corpus import Corpus
from loralab.data.fitting import Fitted, explain_drop, fit
from loralab.data.gate import LengthCount, find_gate_faults
from loralab.data.masking import Encoded, encode
from loralab.data.privacy import mask_record, quoted_kinds
from loralab.data.records import Conversation, Record
from loralab.data.store import example_columns
from loralab.data.tally import RemovedRow, Tally, describe_removed
from loralab.data.templating import Rendered, Renderer, special_tokens
from loralab.data.word_tokens import WordTokens
from loralab.errors import DataError

PRIVATE_WORDS = "words that hold personal data"
"""What is said of shared words that cannot be quoted without it."""
UNRENDERED = "chat_template"
"""The check that a row fails when its turns cannot be rendered as they are."""
SPECIAL_TOKEN = "special_token"
"""The check that a row fails when a text of it would be read as markup."""
TAKE_OUT = "which would be read as that token; take it out of the text"


@dataclass
class EncodedChunk:
    """The examples of a chunk of rows and what became of each row."""

    columns: pa.RecordBatch | None
    """The examples, laid out by `store.example_columns`; None where there are none."""
    tally: Tally
    """Rows that could not be rendered or that the token limits left out."""
    count: LengthCount
    """What the length limit did."""
    faults: dict[str, list[str]] = field(default_factory=dict)
    """The places of rows that the gate refuses, under each fault."""
    overlaps: list[RemovedRow] = field(default_factory=list)
    """Rows that share text with rows that must not be trained on."""


class ExampleMaker:
    """Makes examples of the rows of a corpus."""

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerBase,
        config: DataConfig,
        loss_weights: Sequence[float],
        overlap_index: OverlapIndex | None = None,
    ) -> None:
        """Takes what the rows are rendered with.

        Args:
            corpus: The checked rows.
            tokenizer: A fast tokenizer with a chat template.
            config: What to supervise and how to fit it.
            loss_weights: Weight of the tokens of each source.
            overlap_index: The rows that must not be trained on; None does not look for overlap.
        """
        self.corpus, self.tokenizer, self.config, self.loss_weights = corpus, tokenizer, config, loss_weights
        self.overlap_index = overlap_index
        self.quoted_kinds = quoted_kinds(config.privacy)
        self.renderer = Renderer(tokenizer, config.supervise)
        self.words = WordTokens(tokenizer.backend_tokenizer)
        self.stop_ids = frozenset(special_tokens(tokenizer).values())

    def __call__(self, numbers: NDArray[np.int64]) -> EncodedChunk:
        """Makes the examples of the rows with the given numbers."""
        tally, faults, overlaps = Tally(len(numbers)), dict[str, list[str]](), list[RemovedRow]()
        kept: list[tuple[int, Conversation, Rendered]] = []
        records = self.corpus.records(numbers)
        for number, conversation, overlap in zip(numbers, records, self._find_overlaps(records), strict=True):
            assert isinstance(conversation, Conversation)
            if overlap is not None:
                found = self._removed(conversation, self._explain_overlap(conversation, overlap))
                overlaps.append(found)
                if self.config.contamination.action == "drop":
                    tally.remove("contamination", found)
                    continue
            if injected := self.renderer.injected(conversation):
                tally.remove(SPECIAL_TOKEN, self._removed(conversation, f"{injected}, {TAKE_OUT}"))
                continue
            try:
                kept.append((int(number), conversation, self.renderer.render(conversation)))
            except DataError as error:
                tally.remove(UNRENDERED, self._removed(conversation, str(error)))
        encoded = encode(self.tokenizer, [rendered for _, _, rendered in kept], self.words)
        count, fitted, sources = LengthCount(policy=self.config.over_length), list[Fitted](), list[int]()
        for (number, conversation, _), item in zip(kept, encoded, strict=True):
            source = int(self.corpus.sources[number])
            made = self._fit(item, conversation, tally, count)
            for each in made:
                gate = find_gate_faults(
                    each.encoded, each.ends_open, self.stop_ids, self.tokenizer.bos_token_id
                )
                for fault in gate:
                    faults.setdefault(fault, []).append(place_of(conversation))
            fitted += made
            sources += [source] * len(made)
        weighted = [self._weighted(each, source) for each, source in zip(fitted, sources, strict=True)]
        columns = example_columns(weighted, [each.conversation for each in fitted], sources)
        return EncodedChunk(columns if fitted else None, tally, count, faults, overlaps)

    def encode_one(self, conversation: Conversation) -> Encoded:
        """Renders and tokenizes one conversation."""
        return encode(self.tokenizer, [self.renderer.render(conversation)], self.words)[0]

    def _find_overlaps(self, records: Sequence[Record]) -> Sequence[Overlap | None]:
        return [None] * len(records) if self.overlap_index is None else self.overlap_index.find_all(records)

    def _explain_overlap(self, conversation: Conversation, overlap: Overlap) -> str:
        """Quotes the words in common; they have lost the signs by which personal data is found."""
        masked, text = mask_record(conversation, self.quoted_kinds), overlap.text
        if masked is not conversation:
            assert self.overlap_index is not None
            again = self.overlap_index.find(masked)
            text = again.text if again is not None and again.against == overlap.against else PRIVATE_WORDS
        return f"shares with {overlap.against}: {text}"

    def _removed(self, conversation: Conversation, reason: str) -> RemovedRow:
        return describe_removed(conversation, reason, self.quoted_kinds)

    def _fit(
        self, encoded: Encoded, conversation: Conversation, tally: Tally, count: LengthCount
    ) -> list[Fitted]:
        quality, length = self.config.quality, len(encoded.input_ids)
        low, high = quality.min_tokens or 0, quality.max_tokens or length
        is_filtered, max_length = not low <= length <= high, self.config.max_length
        try:
            made = [] if is_filtered else self._shortened(encoded, conversation)
        except DataError as error:
            # Like a row that cannot be rendered whole, it has no part in the lengths.
            tally.remove(UNRENDERED, self._removed(conversation, str(error)))
            return []
        count.rows += 1
        count.lengths.append(length)
        if is_filtered:
            check = "min_tokens" if length < low else "max_tokens"
            tally.remove(check, self._removed(conversation, f"the row has {length} tokens"))
            count.filtered += 1
            return []
        if length > max_length:
            count.too_long.append(place_of(conversation))
            count.long_texts += conversation.is_text
            count.dropped += not made
            count.truncated += any(each.is_cut for each in made)
            count.supervised_lost += encoded.num_supervised - sum(m.encoded.num_supervised for m in made)
            if not made:
                reason = explain_drop(length, conversation.is_text, self.config.over_length)
                tally.remove("over_length", self._removed(conversation, reason))
        return made

    def _shortened(self, encoded: Encoded, conversation: Conversation) -> list[Fitted]:
        return fit(encoded, conversation, self.config.over_length, self.config.max_length, self.encode_one)

    def _weighted(self, fitted: Fitted, source: int) -> Encoded:
        factor = self.loss_weights[source]
        if factor == 1:
            return fitted.encoded
        spans = tuple((start, end, weight * factor) for start, end, weight in fitted.encoded.spans)
        return Encoded(fitted.encoded.input_ids, spans)


def explain_unrendered(tally: Tally, split: str) -> list[str]:
    """Says of each check of the rendering which row is the first to fail it, and how to go on.

    Args:
        tally: What became of the rows.
        split: Name of the split.
    """
    messages = []
    for removals in (tally.removed[check] for check in (SPECIAL_TOKEN, UNRENDERED) if check in tally.removed):
        first = removals.examples[0]
        others = removals.count - 1
        more = f" (and {others:,} more {split} row{'s' * (others > 1)})" if others else ""
        messages.append(f"{first.file} {first.place}: {first.reason.rstrip('.')}{more}")
    return messages


def place_of(conversation: Conversation) -> str:
    """Where a conversation stands, as messages show it."""
    return f"{conversation.source} {conversation.place}"
