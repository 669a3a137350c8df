"""How the command begins and ends."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from typer.testing import CliRunner

from loralab.cli import inspecting
from loralab.cli.main import app

Run = Callable[..., Any]
COMMANDS = ("inspect", "validate", "convert", "split", "dedup")


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"loralab {version('loralab')}\n"


@pytest.mark.parametrize("width", [80, 120])
def test_help_names_every_command(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    output = CliRunner().invoke(app, ["data", "--help"]).output
    assert all(command in output for command in COMMANDS)
    assert max(map(len, output.splitlines())) <= width


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    assert run(command, "-h").exit_code == 0


def test_unknown_words_end_with_2(run: Run) -> None:
    assert run("inspekt").exit_code == 2
    assert run("validate").exit_code == 2
    assert run("validate", "a", "--limit", "none").exit_code == 2


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (PermissionError(13, "Permission denied", "x.html"), 2, "error: x.html: Permission denied\n"),
    ],
)
def test_interruptions_and_the_system_are_explained(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(inspecting, "run_inspect", fail)
    result = run("inspect", "hub:owner/rows")
    assert (result.exit_code, result.stderr) == (code, says)


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(inspecting, "run_inspect", fail)
    with pytest.raises(ZeroDivisionError):
        run("inspect", "hub:owner/rows")


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    program = (
        "import sys\n"
        "import loralab.cli.main\n"
        "light = {'torch', 'transformers', 'hydra', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "from loralab.cli import converting, inspecting, rewriting, validating\n"
        "heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "print(sorted(light), sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"
