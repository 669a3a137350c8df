"""Token ids and labels: what is learned is read back as text and compared with text written by hand."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from loralab.data.collate import pad_examples
from loralab.data.masking import IGNORE_INDEX, Example, encode, make_example, token_spans
from loralab.data.records import Conversation, Message
from loralab.data.templating import Rendered, render

TURNS = (
    ("system", "You are a helpful assistant."),
    ("user", "Capital of France?"),
    ("assistant", "Paris is the capital."),
    ("user", "Paris is the capital?"),
    ("assistant", "Paris is the capital."),
)


def conversation(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns), "rows.jsonl", 1)


def encode_turns(tokenizer: PreTrainedTokenizerBase, *turns: tuple[str, str]) -> Example:
    made = conversation(*turns)
    return make_example(encode(tokenizer, [render(tokenizer, made)])[0], made)


def runs(tokenizer: PreTrainedTokenizerBase, example: Example, *, learned: bool) -> list[str]:
    """The text of each unbroken run of tokens that are learned, or that are not."""
    texts: list[str] = []
    previous = not learned
    for token, label in zip(example.input_ids, example.labels, strict=True):
        is_learned = label != IGNORE_INDEX
        if is_learned == learned:
            if previous != learned:
                texts.append("")
            texts[-1] += tokenizer.decode([token])
        previous = is_learned
    return texts


def test_only_the_answers_and_their_ends_are_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    example = encode_turns(tokenizer, *TURNS)
    assert runs(tokenizer, example, learned=True) == ["Paris is the capital.<|im_end|>"] * 2
    assert runs(tokenizer, example, learned=False) == [
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nCapital of France?<|im_end|>\n<|im_start|>assistant\n",
        "\n<|im_start|>user\nParis is the capital?<|im_end|>\n<|im_start|>assistant\n",
        "\n",
    ]


def test_labels_are_the_ids_themselves(tokenizer: PreTrainedTokenizerBase) -> None:
    example = encode_turns(tokenizer, *TURNS)
    pairs = zip(example.input_ids, example.labels, strict=True)
    assert all(label in (token, -100) for token, label in pairs)
    assert example.labels.count(tokenizer.eos_token_id) == 2
    # Five turns end with the token, two of them are answers.
    assert example.input_ids.count(tokenizer.eos_token_id) == 5


def test_ids_are_those_of_the_tokenizer_s_own_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [{"role": role, "content": content} for role, content in TURNS]
    expected = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert encode_turns(tokenizer, *TURNS).input_ids == expected


def test_text_is_learned_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    example = encode_turns(tokenizer, ("text", "The capital of France."))
    assert example.labels == example.input_ids
    assert tokenizer.decode(example.labels) == "The capital of France.<|im_end|>"
    # Nothing comes before the first token, so it cannot be predicted.
    assert example.num_supervised == len(example.input_ids) - 1


def test_bos_of_a_text_is_read_once_and_not_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    example = encode_turns(changed, ("text", "Paris."))
    assert example.input_ids == [*changed("Paris.").input_ids, changed.eos_token_id]
    assert example.input_ids.count(changed.bos_token_id) == 1
    assert example.labels == [-100, *example.input_ids[1:]]


def test_chat_gets_no_bos_besides_the_template_s_own(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    assert encode_turns(changed, *TURNS).input_ids == encode_turns(tokenizer, *TURNS).input_ids


@pytest.mark.parametrize("answer", ["naïve café 🎉", "two  spaces\n\n\tand lines", "  leading", "日本語\n"])
def test_every_byte_of_an_answer_is_learned(tokenizer: PreTrainedTokenizerBase, answer: str) -> None:
    example = encode_turns(tokenizer, ("user", "Say 🎉\n\n"), ("assistant", answer))
    learned = [label for label in example.labels if label != -100]
    assert tokenizer.decode(learned) == answer + "<|im_end|>"


def test_encoded_texts_keep_their_order(tokenizer: PreTrainedTokenizerBase) -> None:
    made = [conversation(("text", text)) for text in ("one two three", "four", "")]
    encoded = encode(tokenizer, [render(tokenizer, item) for item in made])
    assert [tokenizer.decode(item.input_ids) for item in encoded] == [
        "one two three<|im_end|>",
        "four<|im_end|>",
        "<|im_end|>",
    ]


def test_nothing_encodes_to_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    assert encode(tokenizer, []) == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([5, 6, 7], 2), ([-100, 6, 7], 2), ([-100, -100, 7], 1), ([5, -100, -100], 0), ([-100, -100], 0)],
)
def test_first_token_does_not_count_as_supervised(labels: list[int], expected: int) -> None:
    assert Example([1] * len(labels), labels, conversation(("text", "a"))).num_supervised == expected


TEXT = "Q: hi A: yes no!"
SPAN = (9, 15)
"""`yes no` in `TEXT`."""


class Offsets:
    """An encoding of which only the character range of each token is known."""

    def __init__(self, *offsets: tuple[int, int]) -> None:
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets)

    def char_to_token(self, place: int) -> int | None:
        return next((i for i, (start, end) in enumerate(self.offsets) if start <= place < end), None)

    def token_to_chars(self, token: int) -> tuple[int, int]:
        return self.offsets[token]


def learned_tokens(rendered: Rendered, *offsets: tuple[int, int]) -> list[int]:
    spans = token_spans(Offsets(*offsets), rendered)  # type: ignore[arg-type]
    return [token for start, end, _ in spans for token in range(start, end)]


@pytest.mark.parametrize(
    ("offset", "is_learned"),
    [
        ((9, 12), True),  # yes
        ((8, 12), True),  # a space before the span and its first word
        ((12, 15), True),  # a space inside and the last word
        ((13, 15), True),  # no
        ((12, 13), True),  # white space inside
        ((8, 9), False),  # white space before
        ((7, 12), False),  # a colon before the span
        ((13, 16), False),  # past the end
        ((15, 16), False),  # after the end
        ((8, 16), False),  # around the span
        ((10, 10), False),  # no characters inside
        ((9, 9), False),  # no characters at the start
        ((15, 15), False),  # no characters at the end
        ((0, 2), False),  # elsewhere
    ],
)
def test_token_is_learned_when_its_words_lie_in_a_span(offset: tuple[int, int], is_learned: bool) -> None:
    assert learned_tokens(Rendered(TEXT, (SPAN,), (1.0,)), offset) == ([0] if is_learned else [])


def test_white_space_that_straddles_the_start_is_not_learned() -> None:
    rendered = Rendered("A\n\nb", ((2, 4),), (1.0,))
    assert learned_tokens(rendered, (0, 1), (1, 3), (3, 4)) == [2]


def test_labels_follow_several_spans_and_do_not_join_them() -> None:
    rendered = Rendered("abcdef", ((0, 2), (4, 6)), (1.0, 1.0))
    assert learned_tokens(rendered, (0, 1), (1, 2), (2, 4), (4, 6)) == [0, 1, 3]
    # A token over the border of two neighbouring spans belongs to neither.
    assert learned_tokens(Rendered("abcd", ((0, 2), (2, 4)), (1.0, 1.0)), (1, 3)) == []


def test_no_spans_learn_nothing() -> None:
    assert learned_tokens(Rendered("ab", (), ()), (0, 1), (1, 2)) == []


def test_spans_keep_their_weights() -> None:
    rendered = Rendered("abcd", ((0, 2), (3, 4)), (0.5, 2.0))
    offsets = Offsets((0, 1), (1, 2), (2, 3), (3, 4))
    assert token_spans(offsets, rendered) == ((0, 2, 0.5), (3, 4, 2.0))  # type: ignore[arg-type]


def test_weights_of_turns_become_weights_of_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = (
        Message("user", "a"),
        Message("assistant", "Paris.", weight=0.5),
        Message("user", "b"),
        Message("assistant", "Paris.", weight=0.0),
        Message("user", "c"),
        Message("assistant", "Paris."),
    )
    made = Conversation(turns, "rows.jsonl", 1)
    example = make_example(encode(tokenizer, [render(tokenizer, made)])[0], made)
    assert runs(tokenizer, example, learned=True) == ["Paris.<|im_end|>"] * 2
    assert example.weights is not None
    length = len(tokenizer("Paris.<|im_end|>").input_ids)
    assert [weight for weight in example.weights if weight] == [0.5] * length + [1.0] * length
    assert (example.num_supervised, example.loss_weight) == (2 * length, 1.5 * length)


def reference_labels(ids: list[int], offsets: list[tuple[int, int]], rendered: Rendered) -> list[int]:
    """Token by token: learned when its words lie in one span; without any text, between two that are."""
    labels = [IGNORE_INDEX] * len(ids)
    for place, (start, end) in enumerate(offsets):
        token = rendered.text[start:end]
        start += len(token) - len(token.lstrip()) if token.strip() else 0
        if any(start < end and low <= start and end <= high for low, high in rendered.spans):
            labels[place] = ids[place]
    return labels


@given(
    st.lists(st.text(st.sampled_from("ab cd\n é🎉日.Paris"), max_size=12), min_size=2, max_size=7),
    st.booleans(),
)
def test_tokens_of_spans_are_those_found_token_by_token(
    tokenizer: PreTrainedTokenizerBase, pieces: list[str], starts: bool
) -> None:
    text, spans = "", []
    for number, piece in enumerate(pieces):
        if number % 2 == starts and piece.strip():
            spans.append((len(text), len(text) + len(piece)))
        text += piece
    rendered = Rendered(text, tuple(spans), (1.0,) * len(spans))
    batch = tokenizer([text], add_special_tokens=False, return_offsets_mapping=True)
    expected = reference_labels(batch["input_ids"][0], batch["offset_mapping"][0], rendered)
    found = make_example(encode(tokenizer, [rendered])[0], conversation(("text", text)))
    assert found.labels == expected


def test_pad_equal_to_eos_does_not_hide_the_stop_token(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.pad_token = changed.eos_token
    examples = [
        encode_turns(changed, ("user", "a"), ("assistant", "Paris.")),
        encode_turns(changed, ("user", "Count to five:"), ("assistant", "one two three four five.")),
    ]
    batch = pad_examples(examples, changed.pad_token_id)
    for row, answer in zip(batch.labels.tolist(), ["Paris.", "one two three four five."], strict=True):
        assert changed.decode([label for label in row if label != -100]) == answer + "<|im_end|>"


def test_white_space_with_trimmed_offsets_is_learned_inside_a_turn_only() -> None:
    # Tokens: "a", a space without offsets, "b", end, a space without offsets, "c"; the span is "a b|".
    rendered = Rendered("a b| c", ((0, 4),), (1.0,))
    assert learned_tokens(rendered, (0, 1), (2, 2), (2, 3), (3, 4), (5, 5), (5, 6)) == [0, 1, 2, 3]
