"""Files that cannot be read are named before anything else is loaded."""

import sys
from pathlib import Path
from subprocess import run

import pytest

from loralab.config.data import BenchmarkConfig, ContaminationConfig, DataConfig, SourceConfig
from loralab.data.sources.presence import config_faults
from loralab.data.sources.reading import read_rows
from loralab.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "rows.txt").write_text("a")
    (tmp_path / "bare").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "part.jsonl").write_text('{"text": "a"}\n')
    return tmp_path


def test_every_path_of_a_config_is_looked_at(folder: Path) -> None:
    lost = str(folder / "row.jsonl")
    config = DataConfig(
        name="file",
        sources=[SourceConfig(path=[str(folder / "rows.jsonl"), lost, f"{lost}.gz"])],
        val_path=lost,
        test_path=str(folder / "*.csv"),
        contamination=ContaminationConfig(benchmarks=[lost, BenchmarkConfig(path=str(folder / "bare"))]),
    )
    near = "does not exist. Did you mean 'rows.jsonl'?"
    assert [fault.partition(" Allowed")[0] for fault in config_faults(config)] == [
        f"data.sources[0].path={lost!r} {near}",
        f"data.sources[0].path={lost + '.gz'!r} {near}",
        f"data.val_path={lost!r} {near}",
        f"data.test_path={str(folder / '*.csv')!r} matches no file.",
        f"data.contamination.benchmarks={lost!r} {near}",
        f"data.contamination.benchmarks={str(folder / 'bare')!r} is a folder without a file of a known kind "
        "in it.",
    ]


def test_what_is_there_or_on_the_hub_has_no_fault(folder: Path) -> None:
    sources = [SourceConfig(path=str(folder / name)) for name in ("rows.jsonl", "full", "*.jsonl", "f*/*")]
    config = DataConfig(name="file", sources=sources, val_path="hub:owner/name")
    assert config_faults(config) == []
    assert config_faults(DataConfig()) == []


def test_what_is_no_path_is_left_to_the_rules_of_the_config() -> None:
    assert config_faults(DataConfig(name="file", path=5, sources=[SourceConfig()], val_path=["a", 1])) == []


@pytest.mark.parametrize(("name", "encoding"), [("row.jsonl", "utf-8"), ("rows.txt", "utf-8"),
    ("rows.jsonl", "klingon"), ("full", "utf-8")])  # fmt: skip
def test_the_message_is_that_of_the_reading(name: str, encoding: str, folder: Path) -> None:
    path = folder / name
    with pytest.raises(DataError) as refused:
        list(read_rows(path, encoding=encoding))
    found = config_faults(DataConfig(name="file", path=str(path), encoding=encoding))
    assert found == ([] if name == "full" else [str(refused.value)])


def test_looking_takes_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'pyarrow', 'numpy'}"
    program = f"import sys; import loralab.data.sources.presence; print({heavy} & set(sys.modules))"
    result = run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "set()\n"
