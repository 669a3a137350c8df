"""Where everything lies that can be made again."""

from pathlib import Path

import pytest

from loralab.runs.cache_folder import cache_dir


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [
        ("/own", "/xdg", "/own"),
        ("", "/xdg", "/xdg/loralab"),
        (None, "/xdg", "/xdg/loralab"),
        (None, "", "/home/me/.cache/loralab"),
        (None, None, "/home/me/.cache/loralab"),
    ],
)
def test_the_own_variable_comes_before_that_of_the_desktop(
    monkeypatch: pytest.MonkeyPatch, own: str | None, xdg: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("LORALAB_CACHE", own), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)
