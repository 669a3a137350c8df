"""The first check that a row fails."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.config.data import QualityConfig
from loralab.data.quality.judge import Judge, Removal
from loralab.data.records import Conversation, LabelledConversation, Message, PreferencePair, Record, ToolCall
from loralab.errors import ConfigError

OFF = {"min_chars": None, "role_order": False, "max_garble": None}
CALL = ToolCall("f", {})


def judge(record: Record, **options: object) -> Removal | None:
    return Judge(QualityConfig(**{**OFF, **options}))(record)  # type: ignore[arg-type]


def chat(*contents: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[place % 2], text) for place, text in enumerate(contents)))


def test_a_sound_row_stays() -> None:
    assert Judge(QualityConfig())(chat("What is 2 + 2?", "4")) is None


def test_switched_off_checks_remove_nothing() -> None:
    assert judge(Conversation((Message("assistant", ""), Message("assistant", "\ufffd")))) is None


def test_short_turns_are_removed() -> None:
    assert judge(chat("hi", " \n"), min_chars=1) == Removal(
        "min_chars", "turn 2 (assistant) has 0 of at least 1 characters"
    )
    assert judge(chat("h i", "abc"), min_chars=3) == Removal(
        "min_chars", "turn 1 (user) has 2 of at least 3 characters"
    )
    document = Conversation((Message("text", "ab"),))
    assert judge(document, min_chars=3) == Removal("min_chars", "the text has 2 of at least 3 characters")


def test_turns_that_call_a_tool_or_answer_for_one_may_be_empty() -> None:
    turns = (
        Message("system", ""),
        Message("user", "hi"),
        Message("assistant", "", tool_calls=(CALL,)),
        Message("tool", ""),
        Message("assistant", "ok"),
    )
    assert judge(Conversation(turns), min_chars=1) is None


def test_turns_out_of_order_are_removed() -> None:
    record = LabelledConversation(
        (Message("user", "a"), Message("user", "b"), Message("assistant", "c")), True
    )
    assert judge(record, role_order=True) == Removal("role_order", "turn 2 (user) follows turn 1 (user)")


def test_both_sides_of_a_pair_are_judged() -> None:
    prompt, good, empty = (Message("user", "a"),), (Message("assistant", "b"),), (Message("assistant", ""),)
    fault = "turn 2 (assistant) has 0 of at least 1 characters"
    assert judge(PreferencePair(prompt, good, good), min_chars=1, role_order=True) is None
    assert judge(PreferencePair(prompt, empty, good), min_chars=1) == Removal("min_chars", f"chosen: {fault}")
    assert judge(PreferencePair(prompt, good, empty), min_chars=1) == Removal(
        "min_chars", f"rejected: {fault}"
    )
    twice = PreferencePair(prompt, good, good + good)
    assert judge(twice, role_order=True) == Removal(
        "role_order", "rejected: turn 3 (assistant) follows turn 2 (assistant)"
    )


def test_repetition_of_answers_and_their_reasoning_is_removed() -> None:
    loop = "I am sorry. " * 10
    removal = Removal(
        "max_repetition", "turn 2 (assistant) repeats itself in 100% of its words, more than 50%"
    )
    assert judge(chat("hi", loop), max_repetition=0.5) == removal
    thought = Conversation((Message("user", "hi"), Message("assistant", "ok", reasoning=loop)))
    assert judge(thought, max_repetition=0.5) == removal
    assert judge(chat(loop, "hi"), max_repetition=0.5) is None
    assert judge(chat("hi", loop), max_repetition=1.0) is None


def test_garbled_turns_are_removed() -> None:
    removal = Removal("max_garble", "turn 1 (user) has 50% garbled characters, more than 10%")
    assert judge(chat("a\ufffd", "b"), max_garble=0.1) == removal
    assert judge(chat("a\ufffd", "b"), max_garble=0.5) is None


def test_copies_of_the_prompt_are_removed() -> None:
    removal = Removal(
        "max_prompt_copy",
        "turn 2 (assistant) copies 100% of its 5-grams from the turns before it, more than 90%",
    )
    assert judge(chat("say: a b c d e f", "a b c d e f"), max_prompt_copy=0.9) == removal
    assert judge(chat("a b c d e f", "no", "ok", "b c d e f"), max_prompt_copy=0.9) is not None
    assert judge(chat("hello there", "a b c d e f"), max_prompt_copy=0.9) is None


def test_unclosed_fences_are_removed_from_answers_only() -> None:
    removal = Removal("balanced", "turn 2 (assistant): the code fence '```' in line 1 is not closed")
    assert judge(chat("hi", "```py\na"), balanced=True) == removal
    assert judge(chat("```py\na", "hi"), balanced=True) is None


def test_answers_declared_as_json_must_parse() -> None:
    removal = judge(chat("hi", ' {"a": 1} ', "and?", "no"), json_response=True)
    assert removal is not None
    assert removal.check == "json_response"
    assert removal.reason == "turn 4 (assistant) is no JSON: Expecting value at line 1 column 1"
    call = Conversation((Message("user", "hi"), Message("assistant", "", tool_calls=(CALL,))))
    assert judge(call, json_response=True) is None


def test_other_languages_are_removed() -> None:
    pytest.importorskip("py3langid")
    german = "Das Wetter ist heute schön und wir gehen in den Park."
    removal = judge(chat("Hello", german), languages=["en"])
    assert removal is not None
    assert removal.check == "languages"
    assert removal.reason.startswith("turn 2 (assistant) is in 'de' with probability ")
    assert judge(chat(german, "Hello"), languages=["en"]) is None
    assert judge(chat("Hello", german), languages=["en", "de"]) is None
    with pytest.raises(ConfigError, match="no language that the detector knows"):
        Judge(QualityConfig(languages=["xx"]))


def test_checks_run_in_the_order_of_the_config() -> None:
    broken = Conversation((Message("user", "\ufffd"), Message("user", ""), Message("assistant", "a")))
    assert judge(broken, min_chars=1, role_order=True, max_garble=0.1).check == "min_chars"  # type: ignore[union-attr]
    assert judge(broken, role_order=True, max_garble=0.1).check == "role_order"  # type: ignore[union-attr]


def test_a_judge_travels_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(Judge(QualityConfig(min_chars=3))))
    assert copy(chat("hi", "hello")).check == "min_chars"


def test_sound_public_rows_stay(shared_data: Path) -> None:
    verdict = Judge(QualityConfig(max_repetition=0.9, max_prompt_copy=0.95))
    lines = (shared_data / "gsm8k_train.jsonl").read_text("utf-8").splitlines()[:2000]
    rows = [json.loads(line) for line in lines]
    assert [removal for row in rows if (removal := verdict(chat(row["question"], row["answer"])))] == []


odd = st.text(alphabet=st.characters(), max_size=80)
messages = st.builds(
    Message, st.sampled_from(["system", "user", "assistant", "tool", "text"]), odd, reasoning=odd
)


@given(st.lists(messages, max_size=5).map(tuple), st.lists(messages, max_size=2).map(tuple))
def test_odd_rows_never_break_a_judge(first: tuple[Message, ...], second: tuple[Message, ...]) -> None:
    verdict = Judge(
        QualityConfig(
            max_repetition=0.5, max_prompt_copy=0.5, balanced=True, json_response=True, max_garble=0.5
        )
    )
    for record in (
        Conversation(first),
        PreferencePair(first, second, first),
        LabelledConversation(second, True),
    ):
        removal = verdict(record)
        assert removal is None or removal.reason
