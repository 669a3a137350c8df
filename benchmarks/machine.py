"""What the figures of a benchmark were measured on."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


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
