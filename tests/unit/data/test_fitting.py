"""Over-long examples, with a toy tokenizer of one token per character and markup that is easy to count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.data.fitting import Fitted, explain_drop, fit
from loralab.data.masking import Encoded
from loralab.data.records import Conversation, Message

POLICIES = ("drop", "raise", "cut_response", "cut_oldest", "cut_prompt", "window")


def encode(conversation: Conversation) -> Encoded:
    """Each turn is `<`, a letter for its role, its characters and `>`; answers and `>` are learned."""
    if conversation.is_text:
        text = conversation.response + ">"
        return Encoded([ord(c) for c in text], ((0, len(text), 1.0),))
    ids, spans = [], []
    for message in conversation.messages:
        ids += [ord("<"), ord(message.role[0])]
        start = len(ids)
        ids += [ord(c) for c in message.content + ">"]
        if message.role == "assistant":
            spans.append((start, len(ids), 1.0))
    return Encoded(ids, tuple(spans))


def chat(*turns: str) -> Conversation:
    """Turns such as `u:hello`."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return Conversation(tuple(Message(roles[turn[0]], turn[2:]) for turn in turns), "rows", 1)


def fitted(conversation: Conversation, policy: str, max_length: int) -> list[Fitted]:
    return fit(encode(conversation), conversation, policy, max_length, encode)


@pytest.mark.parametrize(
    ("is_text", "policy", "reason"),
    [
        (False, "drop", "the row has 9 tokens"),
        (True, "raise", "the row has 9 tokens"),
        (
            False,
            "window",
            "the row has 9 tokens; data.over_length=window cuts plain texts only: chats take cut_response, "
            "cut_oldest, cut_prompt",
        ),
        (
            True,
            "cut_prompt",
            "the row has 9 tokens; data.over_length=cut_prompt shortens chats only: plain texts take window",
        ),
        (False, "cut_oldest", "the row has 9 tokens, too many for data.over_length=cut_oldest"),
    ],
)
def test_a_dropped_row_says_what_would_keep_a_part_of_it(is_text: bool, policy: str, reason: str) -> None:
    assert explain_drop(9, is_text, policy) == reason


def text(item: Fitted) -> str:
    return "".join(map(chr, item.encoded.input_ids))


def learned(item: Fitted) -> list[str]:
    return [text(item)[start:end] for start, end, _ in item.encoded.spans]


@pytest.mark.parametrize("policy", POLICIES)
def test_example_that_fits_is_left_as_it_is(policy: str) -> None:
    (item,) = fitted(chat("u:hi", "a:yes"), policy, 11)
    assert text(item) == "<uhi><ayes>"
    assert not item.is_cut
    assert not item.ends_open


@pytest.mark.parametrize("policy", ["drop", "raise", "window"])
def test_long_chat_is_dropped(policy: str) -> None:
    assert fitted(chat("u:hi", "a:yes"), policy, 10) == []


@pytest.mark.parametrize("policy", ["drop", "raise", "cut_response", "cut_oldest", "cut_prompt"])
def test_long_document_is_dropped(policy: str) -> None:
    assert fitted(Conversation((Message("text", "abcdef"),)), policy, 5) == []


def test_response_is_cut_and_does_not_learn_to_stop_there() -> None:
    (item,) = fitted(chat("u:hi", "a:yes"), "cut_response", 9)
    assert text(item) == "<uhi><aye"
    assert learned(item) == ["ye"]
    assert item.is_cut
    assert item.ends_open


def test_cut_in_a_later_turn_keeps_the_answers_before_it_whole() -> None:
    conversation = chat("u:hi", "a:yes", "u:and then", "a:no")
    # The limit falls into the second question, of which nothing can be learned.
    (item,) = fitted(conversation, "cut_response", 15)
    assert text(item) == "<uhi><ayes>"
    assert item.is_cut
    assert not item.ends_open
    assert [message.content for message in item.conversation.messages] == ["hi", "yes"]


def test_response_of_which_nothing_would_be_left_is_dropped() -> None:
    assert fitted(chat("u:hello", "a:yes"), "cut_response", 8) == []
    assert fitted(chat("u:hello", "a:yes"), "cut_response", 10) == []
    assert len(fitted(chat("u:hello", "a:yes"), "cut_response", 11)) == 1


def test_oldest_turns_go_and_the_system_turn_stays() -> None:
    conversation = chat("s:sys", "u:one", "a:uno", "u:two", "a:dos", "u:three", "a:tres")
    (item,) = fitted(conversation, "cut_oldest", 34)
    assert text(item) == "<ssys><utwo><ados><uthree><atres>"
    assert [message.content for message in item.conversation.messages] == [
        "sys",
        "two",
        "dos",
        "three",
        "tres",
    ]
    assert item.is_cut
    assert not item.ends_open
    (item,) = fitted(conversation, "cut_oldest", 32)
    assert text(item) == "<ssys><uthree><atres>"


def test_last_exchange_that_is_too_long_alone_is_dropped() -> None:
    assert fitted(chat("u:one", "a:uno", "u:two", "a:dos"), "cut_oldest", 11) == []


def test_prompt_loses_text_from_its_front() -> None:
    (item,) = fitted(chat("u:abcdefgh", "a:yes"), "cut_prompt", 14)
    assert text(item).endswith("><ayes>")
    assert text(item).startswith("<u")
    kept = item.conversation.messages[0].content
    assert 0 < len(kept) <= 5
    assert "abcdefgh".endswith(kept)
    assert learned(item) == ["yes>"]
    assert item.is_cut


def test_longest_user_turn_is_the_one_that_is_cut() -> None:
    (item,) = fitted(chat("u:ab", "a:c", "u:" + "x" * 30, "a:d"), "cut_prompt", 30)
    assert [message.content for message in item.conversation.messages][:2] == ["ab", "c"]


def test_prompt_that_cannot_shrink_enough_is_dropped() -> None:
    assert fitted(chat("u:hi", "a:" + "y" * 30), "cut_prompt", 20) == []


def test_document_is_split_into_windows_that_lose_nothing() -> None:
    windows = fitted(Conversation((Message("text", "abcdefgh"),)), "window", 4)
    # The token that two windows share is read by the second and learned by the first.
    assert [text(item) for item in windows] == ["abcd", "defg", "gh>"]
    assert [learned(item) for item in windows] == [["abcd"], ["efg"], ["h>"]]
    assert [item.ends_open for item in windows] == [True, True, False]
    assert not any(item.is_cut for item in windows)


@given(st.integers(1, 60), st.integers(3, 20))
def test_windows_predict_every_token_but_the_first_once(length: int, max_length: int) -> None:
    conversation = Conversation((Message("text", "x" * length),))
    windows = fitted(conversation, "window", max_length)
    assert sum(item.encoded.num_supervised for item in windows) == length
    assert all(len(item.encoded.input_ids) <= max_length for item in windows)


@given(
    st.lists(
        st.tuples(st.text("abc", max_size=9), st.text("xyz", min_size=1, max_size=9)), min_size=1, max_size=4
    ),
    st.sampled_from(POLICIES),
    st.integers(4, 60),
)
def test_whatever_is_kept_fits_and_markup_stays_whole(
    exchanges: list[tuple[str, str]], policy: str, max_length: int
) -> None:
    conversation = chat(*(turn for user, answer in exchanges for turn in (f"u:{user}", f"a:{answer}")))
    for item in fitted(conversation, policy, max_length):
        assert len(item.encoded.input_ids) <= max_length
        assert item.encoded.num_supervised > 0
        turns = text(item).split("<")[1:]
        # Every turn but an open last one has its role and its end.
        assert all(turn[0] in "ua" and turn.endswith(">") for turn in turns[: len(turns) - item.ends_open])
        assert turns[-1][0] == "a"
