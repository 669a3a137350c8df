"""The language of an answer."""

import sys

import pytest

pytest.importorskip("py3langid")

from loralab.data.quality import language
from loralab.data.quality.language import check_languages, detect_language
from loralab.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The weather is nice today and we are going to the park.", "en"),
        ("Das Wetter ist heute schön und wir gehen in den Park.", "de"),
        ("Le temps est beau aujourd'hui et nous allons au parc.", "fr"),
        ("今日は天気がいいので、みんなで公園に行きましょう。", "ja"),
        ("Сегодня хорошая погода, и мы идём гулять в парк.", "ru"),
    ],
)
def test_prose_is_recognised(text: str, code: str) -> None:
    found = detect_language(text)
    assert found is not None
    assert found.code == code
    assert found.probability > 0.5


@pytest.mark.parametrize(
    "text",
    ["", "Guten Morgen", "16 - 3 - 4 = 9 " * 5, "Ja.\n```\nthe quick brown fox jumps over\n```", "\ud800"],
)
def test_short_texts_and_code_are_not_judged(text: str) -> None:
    assert detect_language(text) is None


def test_known_codes_pass() -> None:
    check_languages(["en", "de", "zh"])


def test_an_unknown_code_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"languages: 'EN' is no language.*Did you mean 'en'\?.*Known: .*, de, "
    ):
        check_languages(["de", "EN"])


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="allows no language"):
        check_languages([])


def test_an_absent_detector_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    language._load_identifier.cache_clear()
    with pytest.raises(ConfigError, match=r'pip install "loralab\[language\]"'):
        check_languages(["en"])
