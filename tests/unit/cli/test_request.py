"""Paths and options among the words of a command."""

from pathlib import Path

import pytest

from loralab.cli.request import make_request, split_words
from loralab.errors import ConfigError


def test_words_with_a_known_key_are_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.jsonl").touch()
    words = ["a.jsonl", "format=alpaca", "data.columns.prompt=q", "a=b.jsonl", "a=*.jsonl", "hub:x/y", "q=1"]
    paths = ["a.jsonl", "a=b.jsonl", "a=*.jsonl", "hub:x/y"]
    assert split_words(words) == (paths, ["format=alpaca", "data.columns.prompt=q", "q=1"])


def test_each_path_is_a_source_of_its_own() -> None:
    sources = make_request(["x/rows.jsonl", "y/rows.jsonl"], [], "validate").sources
    assert [(source.name, source.path, source.key) for source in sources] == [
        ("rows_1", "x/rows.jsonl", "PATH"),
        ("rows_2", "y/rows.jsonl", "PATH"),
    ]


def test_options_reach_every_source() -> None:
    request = make_request(["a.jsonl"], ["columns.prompt=question", "encoding=cp1252"], "validate")
    assert request.sources[0].columns == {"prompt": "question"}
    assert request.sources[0].encoding == "cp1252"


def test_commands_that_write_check_only_what_is_asked_for() -> None:
    assert make_request(["a"], [], "inspect").config.quality.min_chars == 1
    assert make_request(["a"], [], "inspect").config.privacy.action == "report"
    config = make_request(["a"], ["quality.max_garble=0.2"], "convert").config
    assert (config.quality.min_chars, config.quality.role_order, config.privacy.action) == (
        None,
        False,
        "none",
    )
    assert config.quality.max_garble == 0.2


def test_options_without_effect_are_known() -> None:
    options = ["max_length=64", "quality.min_tokens=2", "quality.min_chars=2", "dedup.near=prompt"]
    assert make_request(["a"], options, "inspect").idle == ("max_length", "quality.min_tokens")
    assert make_request(["a"], options, "inspect --tokenizer").idle == ()
    assert make_request(["a"], options, "convert").idle == ("max_length", "quality.min_tokens", "dedup.near")
    assert make_request(["a"], ["data.split.by=x", "split.method=grouped"], "split").idle == ()


@pytest.mark.parametrize(
    ("paths", "options", "says"),
    [
        ([], [], "PATH is missing"),
        (["a"], ["path=b"], "path=b: name the rows as PATH"),
        (["a"], ["data.sources=[]"], "name the rows as PATH"),
        (["a"], ["formt=alpaca"], r"data.formt is unknown. Did you mean 'format'\?"),
        (["a"], ["format=alpacca"], r"data.format='alpacca' is unknown. Did you mean 'alpaca'\?"),
        (["a"], ["quality.max_garble=2"], "out of range"),
        (["a"], ["quality.languages=en"], r"'en' is not a list or null. Write data.quality.languages=\[en\]"),
        (["a"], ["num_workers=many"], "^data.num_workers='many' is not a whole number or null.$"),
    ],
)
def test_wrong_words_are_refused(paths: list[str], options: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_request(paths, options, "validate")
