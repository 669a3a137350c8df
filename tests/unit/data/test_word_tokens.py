"""Ids put together from words against those of the tokenizer itself."""

import pickle
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase

from loralab.data import word_tokens
from loralab.data.masking import encode
from loralab.data.records import Conversation, Message
from loralab.data.templating import BUNDLED, Rendered, Renderer
from loralab.data.word_tokens import WordTokens
from loralab.errors import DataError

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
NO_REGEX = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
STEPS = {
    "gpt2": BYTES,
    "smollm2": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), NO_REGEX]),
    "llama3": pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")), "isolated"), NO_REGEX,
    ]),
}  # fmt: skip
TEXTS = st.text(
    st.sampled_from("abS'tré10²٣ \t\n\r.,<|>end日🎉\x1c\x85\xa0\u2028") | st.characters(codec="utf-8")
)
SLOW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def copy_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    return Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())


@pytest.fixture(scope="session")
def backends(bare_tokenizer: Callable[..., PreTrainedTokenizerBase]) -> dict[str, Tokenizer]:
    plain = bare_tokenizer("", "<|end|>", ("<|", "<|end"))
    found = {name: copy_of(plain) for name in STEPS}
    for name, steps in STEPS.items():
        found[name].pre_tokenizer = steps
    found["qwen2"].normalizer = normalizers.NFC()
    return found


@pytest.mark.parametrize("name", STEPS)
@SLOW
@given(pieces=st.lists(TEXTS, max_size=5))
def test_ids_are_those_of_the_tokenizer(backends: dict[str, Tokenizer], name: str, pieces: list[str]) -> None:
    words, text = WordTokens(backends[name]), "<|end|>".join(pieces)
    for each in (text, text.encode("ascii", "ignore").decode()):
        assert words.covers(each) or not each.isascii()
        if words.covers(each):
            found = words.tokenize(each, ())
            assert found is not None
            assert found[0] == backends[name].encode(each, add_special_tokens=False).ids


@pytest.mark.parametrize("text", ["a  ²", "a\n\n٣b", " \t\n½ x", "a \n5é", "a  é  5", "\n²\né"])
@pytest.mark.parametrize("name", ["gpt2", "smollm2"])
def test_white_space_before_a_number_beyond_ascii(
    backends: dict[str, Tokenizer], name: str, text: str
) -> None:
    words = WordTokens(backends[name])

    found = words.tokenize(text, ())

    assert words.covers(text)
    assert found is not None
    assert words._ends(words._any_word, text) <= words._own_ends(text)
    assert found[0] == backends[name].encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", STEPS)
def test_which_texts_are_taken(backends: dict[str, Tokenizer], name: str) -> None:
    words, by_classes = WordTokens(backends[name]), name in ("gpt2", "smollm2")
    assert words.covers("Plain text.\n\n")
    assert words.covers("naïve café") == by_classes
    # White space beyond ASCII joins that of ASCII.
    assert not words.covers("a \xa0b")


@pytest.mark.parametrize("name", BUNDLED)
@SLOW
@given(
    asked=TEXTS,
    answers=st.lists(TEXTS, min_size=1, max_size=3),
    supervise=st.sampled_from(["assistant", "all"]),
)
def test_examples_of_every_family_are_the_same(
    family: Callable[[str], PreTrainedTokenizerBase],
    name: str,
    asked: str,
    answers: list[str],
    supervise: str,
) -> None:
    tokenizer = family(name)
    turns = [turn for text in answers for turn in (Message("user", asked), Message("assistant", text))]
    try:
        rendered = Renderer(tokenizer, supervise).render(Conversation(tuple(turns), "rows.jsonl", 1))
    except DataError:
        return
    words = WordTokens(tokenizer.backend_tokenizer)
    assert words.covers("a")
    assert encode(tokenizer, [rendered], words) == encode(tokenizer, [rendered])


@SLOW
@given(text=TEXTS, places=st.lists(st.integers(0, 30), max_size=6))
def test_spans_that_begin_anywhere_are_the_same(
    tokenizer: PreTrainedTokenizerBase, text: str, places: list[int]
) -> None:
    edges = sorted(min(place, len(text)) for place in places)
    spans = tuple(zip(edges[::2], edges[1::2], strict=False))
    rendered = [Rendered(text, spans, (0.5,) * len(spans)), Rendered("ab. cd", ((2, 6),))]
    assert encode(tokenizer, rendered, WordTokens(tokenizer.backend_tokenizer)) == encode(tokenizer, rendered)


def test_tokens_before_borders_are_counted(backends: dict[str, Tokenizer]) -> None:
    words = WordTokens(backends["gpt2"])
    found = words.tokenize("a\nb<|end|>", (0, 1, 2, 3, 10))
    assert found is not None
    ids, counts = found
    assert (len(ids), counts) == (4, [0, 1, 2, 3, 4])
    # The space belongs to the word after it.
    assert words.tokenize("a b", (1, 3)) is not None
    assert words.tokenize("a b", (2, 3)) is None


def with_change(backend: Tokenizer, change: str) -> Tokenizer:
    changed = Tokenizer.from_str(backend.to_str())
    if change == "prefix space":
        changed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif change == "other words":
        changed.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), NO_REGEX])
    elif change == "no words":
        changed.pre_tokenizer = None
    elif change == "other model":
        changed.model = models.WordLevel({"a": 0}, unk_token="a")
    elif change == "dropout":
        changed.model.dropout = 0.5
    elif change == "lower case":
        changed.normalizer = normalizers.Lowercase()
    elif change == "trimmed places":
        changed.post_processor = processors.ByteLevel(trim_offsets=True)
    elif change == "special tokens as text":
        changed.encode_special_tokens = True
    else:
        changed.add_tokens([AddedToken("<x>", **{change: True})])
    return changed


@pytest.mark.parametrize(
    "change",
    [
        *("prefix space", "other words", "no words", "other model", "dropout", "lower case"),
        *("trimmed places", "special tokens as text", "lstrip", "rstrip", "single_word", "normalized"),
    ],
)
def test_another_kind_of_tokenizer_is_left_alone(backends: dict[str, Tokenizer], change: str) -> None:
    assert WordTokens(backends["gpt2"]).covers("a")
    assert not WordTokens(with_change(backends["gpt2"], change)).covers("a")


def test_a_tokenizer_that_disagrees_is_left_alone(
    backends: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_tokens, "_GPT2", word_tokens._GPT2.replace(r"|\s+(?!\S)", ""))
    assert not WordTokens(backends["gpt2"]).covers("a")


def test_padding_of_the_tokenizer_does_not_count(backends: dict[str, Tokenizer]) -> None:
    padded = Tokenizer.from_str(backends["gpt2"].to_str())
    padded.enable_padding(length=9)
    found = WordTokens(padded).tokenize("a", ())
    assert found is not None
    assert len(found[0]) == 1


def test_remembered_words_are_bounded(
    backends: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = WordTokens(backends["gpt2"])
    monkeypatch.setattr(word_tokens, "MAX_WORDS", 0)
    before = len(words._ids_of)
    assert words.tokenize("unheard of words", ()) == words.tokenize("unheard of words", ())
    assert len(words._ids_of) == before


def test_another_process_finds_the_same(backends: dict[str, Tokenizer]) -> None:
    words = WordTokens(backends["llama3"])
    text = "It's 12345  items.\n\nDone<|end|>"
    assert pickle.loads(pickle.dumps(words)).tokenize(text, (0, 30)) == words.tokenize(text, (0, 30))
