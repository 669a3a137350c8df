"""What the account says of rows that give no example, or share words with held-out rows."""

import copy
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig, PrivacyConfig
from loralab.data.contamination import OverlapIndex
from loralab.data.corpus import Corpus, CorpusWriter
from loralab.data.encoding import PRIVATE_WORDS, ExampleMaker
from loralab.data.records import Conversation, Message
from loralab.data.serialization import record_to_json

WORDS = "the quick brown fox jumps over the lazy dog and then"
STRICT = (
    "{% if messages[0].content == 'c' %}{{ raise_exception('c must not begin') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


def store(folder: Path, *rows: tuple[str, ...]) -> Corpus:
    """A corpus of conversations, each given by its turns, the user's first."""
    writer = CorpusWriter(folder / "corpus.arrow")
    for number, texts in enumerate(rows, start=1):
        turns = (Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts))
        record = record_to_json(Conversation(tuple(turns), "rows.jsonl", number))
        writer.append(record, bytes(16), 0, ("rows.jsonl", number), None)
    return writer.close()


def test_a_cut_that_the_template_refuses_leaves_the_row_out_and_the_counts_add_up(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = STRICT
    corpus = store(tmp_path, ("a", "b", "c", "d"), ("x" * 400, "b", "c", "d"))
    config = DataConfig(max_length=100, over_length="cut_oldest")
    made = ExampleMaker(corpus, strict, config, [1.0])(np.array([0, 1]))
    assert {check: removals.count for check, removals in made.tally.removed.items()} == {"chat_template": 1}
    (removed,) = made.tally.removed["chat_template"].examples
    assert removed.place == "line 2"
    assert "c must not begin" in removed.reason
    assert made.columns is not None
    assert (made.tally.rows, made.tally.kept, made.columns.num_rows) == (2, 1, 1)
    # Like any row that cannot be rendered, it has no part in the lengths.
    assert (made.count.rows, len(made.count.lengths), made.count.dropped) == (1, 1, 0)


@pytest.mark.parametrize(
    ("held_out", "prompt", "action", "says"),
    [
        (WORDS, f"{WORDS}: ann.lee@example.org", "report", WORDS),
        # The words in common are the address, and what stands around it is too short to be shown.
        (
            "write to ann lee example org at once",
            "write to ann.lee@example.org at once",
            "report",
            PRIVATE_WORDS,
        ),
        (
            "write to ann lee example org at once",
            "write to ann.lee@example.org at once",
            "none",
            "write to ann lee example org at once",
        ),
    ],
)
def test_words_in_common_are_quoted_without_personal_data(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, held_out: str, prompt: str, action: str, says: str
) -> None:
    corpus, index = store(tmp_path, (prompt, "yes")), OverlapIndex(8, None)
    index.add(
        Conversation((Message("user", held_out), Message("assistant", "no")), "test.jsonl", 1), "test 1"
    )
    config = DataConfig(privacy=PrivacyConfig(action=action))
    made = ExampleMaker(corpus, tokenizer, config, [1.0], index)(np.array([0]))
    assert [row.reason for row in made.overlaps] == [f"shares with test 1: {says}"]
