import pytest

from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.records import Conversation, Message
from loralab.evaluation.token_view import (
    LEARNED_STYLE,
    TokenBox,
    as_terminal_text,
    clip_tokens,
    token_boxes,
    token_texts,
)

CONVERSATION = Conversation((Message("user", "Hi"), Message("assistant", "Yes")), "rows.jsonl", 3)


def example_of(tokenizer, text, learned, weights=None):
    """An example whose tokens in `learned` are learned."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    labels = [token if place in learned else IGNORE_INDEX for place, token in enumerate(ids)]
    return Example(ids, labels, CONVERSATION, weights)


def box(text, position=1, label=7):
    return TokenBox(text, 7, label, 1.0, position, False)


def test_the_texts_of_the_tokens_make_up_the_text(tokenizer):
    text = "<|im_start|>user\nnaïve 😀 日本語 capital of France<|im_end|>\n"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text


def test_a_character_of_several_tokens_stands_with_its_last(tokenizer):
    # The vocabulary has the bytes of an emoji one by one.
    ids = tokenizer("a😀b", add_special_tokens=False).input_ids
    assert token_texts(tokenizer, ids) == ["a", "", "", "", "😀", "b"]


def test_an_unfinished_character_at_the_end_is_shown_as_such(tokenizer):
    ids = tokenizer("a😀", add_special_tokens=False).input_ids[:-1]
    texts = token_texts(tokenizer, ids)
    assert texts[0] == "a"
    assert texts[-1].endswith("\N{REPLACEMENT CHARACTER}")


def test_a_replacement_character_of_the_text_holds_nothing_up(tokenizer):
    text = "\N{REPLACEMENT CHARACTER} one two three"
    assert "".join(token_texts(tokenizer, tokenizer(text, add_special_tokens=False).input_ids)) == text


def test_boxes_say_what_is_learned_and_with_what_weight(tokenizer):
    text = "<|im_start|> one<|im_end|>"
    boxes = token_boxes(tokenizer, example_of(tokenizer, text, {2}, [0.0, 0.0, 0.5]))
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert [each.text for each in boxes] == ["<|im_start|>", " one", "<|im_end|>"]
    assert [each.is_learned for each in boxes] == [False, False, True]
    assert [each.is_special for each in boxes] == [True, False, True]
    assert [each.weight for each in boxes] == [0.0, 0.0, 0.5]
    assert boxes[2].facts == f"id {ids[2]} · label {ids[2]} · weight 0.5 · position 2"
    assert boxes[1].facts == f"id {ids[1]} · label -100 · weight 0 · position 1"


def test_the_first_token_is_never_learned_because_nothing_predicts_it(tokenizer):
    boxes = token_boxes(tokenizer, example_of(tokenizer, "<|im_start|> one", {0, 1}))
    assert [each.is_learned for each in boxes] == [False, True]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" one", "·one"),
        ("\n\n", "↵↵"),
        ("\t", "⇥"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("\u200b", "⟨U+200B⟩"),
        ("", "⋯"),
    ],
)
def test_white_space_and_control_characters_are_visible(text, shown):
    assert box(text).shown == shown


def test_the_middle_of_a_long_example_is_left_out():
    boxes = [box(str(place)) for place in range(10)]
    head, skipped, tail = clip_tokens(boxes, 5)
    assert [each.text for each in head] == ["0", "1"]
    assert skipped == 5
    assert [each.text for each in tail] == ["7", "8", "9"]
    assert clip_tokens(boxes, 10) == (boxes, 0, ())


def test_the_terminal_colours_what_is_learned_and_nothing_else():
    boxes = [box("ask [bold]\n", 0), box("Yes", 1), box("!", 2), box(" end", 3, IGNORE_INDEX)]
    text = as_terminal_text(boxes, 10)
    assert text.plain == "ask [bold]\nYes! end"
    learned = "".join(text.plain[span.start : span.end] for span in text.spans if span.style == LEARNED_STYLE)
    assert learned == "Yes!"


def test_nothing_of_a_row_reaches_the_terminal_as_a_command():
    assert "\x1b" not in as_terminal_text([box("\x1b[2J\x07")], 10).plain
