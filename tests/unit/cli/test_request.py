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
    assert make_request(["hub:a/b"], [], "inspect").config.quality.min_chars == 1
    assert make_request(["hub:a/b"], [], "inspect").config.privacy.action == "report"
    config = make_request(["hub:a/b"], ["quality.max_garble=0.2"], "convert").config
    assert (config.quality.min_chars, config.quality.role_order, config.privacy.action) == (
        None,
        False,
        "none",
    )
    assert config.quality.max_garble == 0.2


def test_options_without_effect_are_known() -> None:
    options = ["max_length=64", "quality.min_tokens=2", "quality.min_chars=2", "dedup.near=prompt"]
    assert make_request(["hub:a/b"], options, "inspect").idle == ("max_length", "quality.min_tokens")
    assert make_request(["hub:a/b"], options, "inspect --tokenizer").idle == ()
    assert make_request(["hub:a/b"], options, "convert").idle == (
        "max_length",
        "quality.min_tokens",
        "dedup.near",
    )
    assert make_request(["hub:a/b"], ["data.split.by=x", "split.method=grouped"], "split").idle == ()


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


def test_files_that_cannot_be_read_are_listed_with_the_other_faults(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    (tmp_path / "empty.jsonl").touch()
    names = ("row.jsonl", "rows.jsonl", "empty.jsonl")
    paths = [*(str(tmp_path / name) for name in names), "hub:a//b"]
    with pytest.raises(ConfigError) as refused:
        make_request(paths, ["quality.max_garble=2", "encoding=utf-8"], "inspect")
    assert str(refused.value).splitlines() == [
        "4 faults in the configuration:",
        "  data.quality.max_garble=2.0 is out of range. Allowed: 0 to 1.",
        f"  PATH={paths[0]!r} does not exist. Did you mean 'rows.jsonl'?",
        f"  PATH={paths[2]!r} is empty; at least one row is needed.",
        "  PATH='hub:a//b' names no dataset. Allowed: hub:owner/name.",
    ]


def test_validate_lists_missing_files_itself(tmp_path: Path) -> None:
    assert len(make_request([str(tmp_path / "a.jsonl")], [], "validate").sources) == 1
