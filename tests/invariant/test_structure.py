"""The shape of the source: which way imports point, how large things are, what is named where."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loralab import metrics

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "loralab"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ROOT_MODULE = PACKAGE / "__init__.py"

LAYERS = (
    ("errors", "metrics", "config", "runs", "distributed"),
    ("data", "model", "losses", "optim"),
    ("modules", "callbacks"),
    ("training", "evaluation"),
    ("cli",),
)
"""From the bottom up; a module imports from its own layer and from those before it."""

TOP_LEVEL = {
    "conf", "src", "experiments", "outputs", "tests", "benchmarks", "docs",
    "train.py", "evaluate.py", "sweep.py", "pyproject.toml", "Makefile", "README.md", "LICENSE",
}  # fmt: skip
CONFIG_LIBRARIES = {"hydra", "omegaconf"}
CONFIG_DOOR = PACKAGE / "config" / "load.py"
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
MOST_FILE_LINES = 299
MOST_FUNCTION_LINES = 60
MOST_COMMAND_LINES = 40

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere in it, in full; `from a import b` gives `a.b`."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                folder = path.relative_to(PACKAGE.parent).parent.parts
                parents = folder[: len(folder) - node.level + 1]
                module = ".".join([*parents, *([node.module] if node.module else [])])
            else:
                module = str(node.module)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer_of(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def upward_imports(path: Path) -> list[str]:
    """The imports of a file that point to a higher layer."""
    own = layer_of(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    parts = [module.split(".")[1] for module in imported_modules(path) if module.startswith("loralab.")]
    return [part for part in parts if layer_of(part) > own]


def public_definitions(path: Path) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """The classes, functions and methods that a name without a leading underscore leads to."""

    def inside(prefix: str, body: list[ast.stmt]) -> Iterator[tuple[str, ast.ClassDef | Function]]:
        for node in body:
            if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
                yield f"{prefix}{node.name}", node
                if isinstance(node, ast.ClassDef):
                    yield from inside(f"{prefix}{node.name}.", node.body)

    yield from inside(f"{name_of(path)}:", parse(path).body)


def functions(path: Path) -> Iterator[Function]:
    yield from (node for node in ast.walk(parse(path)) if isinstance(node, Function))


def strings_outside_docstrings(path: Path) -> Iterator[str]:
    tree = parse(path)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_there_are_sources_to_check() -> None:
    assert {"config/load.py", "data/masking.py", "training/fit.py"} <= {name_of(path) for path in SOURCES}


def test_every_part_has_a_layer() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES}

    assert parts - {"__init__"} <= {part for layer in LAYERS for part in layer}


@pytest.mark.parametrize("path", [path for path in SOURCES if path != ROOT_MODULE], ids=name_of)
def test_imports_point_down(path: Path) -> None:
    assert upward_imports(path) == []


def test_the_package_itself_imports_none_of_its_parts() -> None:
    assert [module for module in imported_modules(ROOT_MODULE) if "loralab" in module] == []


def test_only_the_config_door_touches_hydra() -> None:
    touching = {
        name_of(path)
        for path in SOURCES
        if CONFIG_LIBRARIES & {module.split(".")[0] for module in imported_modules(path)}
    }

    assert touching == {name_of(CONFIG_DOOR)}


def test_no_file_has_a_vague_name() -> None:
    tests = (ROOT / "tests").rglob("*.py")

    assert [path for path in [*SOURCES, *tests] if path.stem in VAGUE_NAMES] == []
    assert [path for path in PACKAGE.rglob("*") if path.is_dir() and path.name in VAGUE_NAMES] == []


def test_files_fit_in_the_head() -> None:
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}

    assert {name: count for name, count in lines.items() if count > MOST_FILE_LINES} == {}


def test_functions_fit_on_a_screen() -> None:
    lengths = {
        f"{name_of(path)}:{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in SOURCES
        for function in functions(path)
    }

    assert {name: length for name, length in lengths.items() if length > MOST_FUNCTION_LINES} == {}


def test_everything_public_has_a_docstring() -> None:
    bare = [
        name for path in SOURCES for name, node in public_definitions(path) if not ast.get_docstring(node)
    ]

    assert bare == []
    assert [name_of(path) for path in SOURCES if not ast.get_docstring(parse(path))] == []


def test_every_function_says_what_it_returns() -> None:
    silent = [
        f"{name_of(path)}:{function.name}"
        for path in SOURCES
        for function in functions(path)
        if function.returns is None and function.name != "__init__"
    ]

    assert silent == []


def test_the_top_level_holds_only_what_belongs_there() -> None:
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    names = {file.split("/")[0] for file in listing.split("\0") if file}

    assert {"src", "conf", "tests"} <= names
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("name", ["train.py", "evaluate.py"])
def test_commands_stay_short(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= MOST_COMMAND_LINES


def test_metric_names_are_defined_once() -> None:
    names = [value for key, value in vars(metrics).items() if key.isupper()]
    stages = tuple(f"{name.partition('/')[0]}/" for name in names)
    elsewhere = {
        name_of(path): [text for text in strings_outside_docstrings(path) if text.startswith(stages)]
        for path in SOURCES
        if path != PACKAGE / "metrics.py"
    }

    assert len(names) == len(set(names)) > 0
    assert {name: texts for name, texts in elsewhere.items() if texts} == {}
