"""The command in this process, and files to give to it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loralab.cli.main import app

Run = Callable[..., Result]
Rows = Sequence[Mapping[str, Any]]
WriteRows = Callable[[str, Rows], Path]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `loralab data ...` in the test's folder, in a terminal of 200 columns without colours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def run_words(*words: str) -> Result:
        result = runner.invoke(app, ["data", *map(str, words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run_words


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Writes rows as JSON lines to a file in the test's folder."""

    def write(name: str, rows: Rows) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Six rows, of which only the first can be used."""
    path = tmp_path / "faulty.jsonl"
    path.write_text(
        '{"prompt": "a", "completion": "b"}\n'
        '{"prompt": "a"\n'
        '{"prompt": 5, "completion": "b"}\n'
        "\n"
        '{"prompt": "\\u001b[31mred", "completion": ""}\n'
        "[1]\n"
        '{"prompt": "a", "completion": "b\\ud83d"}\n',
        encoding="utf-8",
    )
    return path
