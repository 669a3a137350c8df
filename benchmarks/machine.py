"""What the figures of a benchmark were measured on."""

import argparse
import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows what is taken where nothing is given, and the lines of a description as they are."""


def command_line(description: str | None, needs_data: bool = False) -> argparse.ArgumentParser:
    """Returns the parser of a benchmark, with `--data` where it needs rows."""
    parser = argparse.ArgumentParser(description=description, formatter_class=_Help)
    if needs_data:
        parser.add_argument(
            "--data", type=_existing_file, required=True, help="JSONL with question and answer",
            default=argparse.SUPPRESS,
        )  # fmt: skip
    return parser


def _existing_file(name: str) -> Path:
    if not (path := Path(name)).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {name}")
    return path


def write_results(name: str, report: dict[str, Any], table: str) -> None:
    """Writes the figures of a benchmark and their table, and prints it."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(table)
    print(table)


def describe_machine(packages: Sequence[str]) -> dict[str, Any]:
    """Lists hardware, versions of the packages that are installed, and the commit."""
    from loralab.runs.manifest import git_state, hardware

    return {
        **hardware(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages if is_installed(name)},
        "git": git_state(Path(__file__).parent),
    }


def is_installed(package: str) -> bool:
    """Whether a package is there."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def machine_line(machine: dict[str, Any]) -> str:
    """Describes the machine in a line of Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {versions}; "
        f"commit {machine['git'].get('commit', 'unknown')[:10]}."
    )
