"""What the figures of a benchmark were measured on."""

import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


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
