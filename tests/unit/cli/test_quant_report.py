"""`loralab model quant-report`."""

import json
import math
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from loralab.cli import quant_report
from loralab.cli.model import app
from loralab.errors import LoralabError
from loralab.evaluation.quantization import SchemeReport
from loralab.model.quant_report import LayerStorage

Run = Callable[..., Result]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model_dir: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Result:
        command = ["quant-report", f"model={tiny_model_dir}", "trainer.precision=fp32", *words]
        result = CliRunner().invoke(app, [*command, "trainer.accelerator=cpu"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def rows_of(result: Result) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in result.output.splitlines() if line.strip()]


def test_tables_by_kind_and_the_totals(report: Run) -> None:
    result = report("--schemes", "nf4,none")
    assert result.exit_code == 0
    lines = rows_of(result)
    # 64 x 64 numbers in 2048 bytes, 64 + 4 of constants and 1,092 of tables: 2 x 3,208 of 32,768 bytes.
    query, plain = (line for line in lines if line[0] == "q_proj x 2")
    assert query[1:5] == ["8,192", "0.03", "0.01", "6.266"]
    assert all(re.fullmatch(r"\d+\.\d\d%", cell) for cell in query[5:8])
    assert plain[4:] == ["32.000", "0.00%", "0.00%", "0.00%"]
    assert ["nf4, sizes in MiB"] in lines and ["none: float32, sizes in MiB"] in lines
    assert [line[0] for line in lines[-2:]] == ["nf4", "none"]
    # Two layers of 36,992 numbers, a norm of 64, embedding and head of 346 tokens x 64: 118,336 x 4 bytes.
    assert lines[-1][1:] == ["32.000", "32.000", "0.45", "0.00%", "-", "-"]


def test_a_line_for_each_layer(report: Run) -> None:
    lines = rows_of(report("--schemes", "int8", "--layers"))
    names = [line[0] for line in lines if line[0].startswith("model.layers.")]
    assert len(names) == 14
    assert names[0] == "model.layers.0.self_attn.q_proj"
    (layer,) = [line for line in lines if line[0] == "model.layers.1.mlp.down_proj"]
    # 64 rows of 128: 8 + 32 / 128 bits.
    assert (layer[1], layer[4]) == ("8,192", "8.250")


@pytest.mark.parametrize("options", [(), ("--layers",)], ids=["kinds", "layers"])
def test_every_column_is_there_at_80_columns(
    report: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = report("--schemes", "nf4", *options, "quant.skip_modules=[layers.0.mlp.down_proj]")
    assert max(map(len, result.output.splitlines())) <= 80
    lines = rows_of(result)
    names = {line[0].removesuffix(" (float32)") for line in lines}
    first = "model.layers.{}.mlp.down_proj" if options else "down_proj x 1"
    # What is stored otherwise than the title says, says so.
    assert result.output.count("(float32)") == 1
    assert {first.format(0), first.format(1), "linear layers"} <= names
    (heads,) = [line for line in lines if line[0] in ("layers", "layer")]
    assert heads[1:6] == ["parameters", "before", "after", "bits", "error"]
    assert heads[6:] == ([] if options else ["lowest", "highest"])


def test_large_figures_are_written_short_enough() -> None:
    name, size = "model.layers.31.self_attn.o_proj", (72 * 10**9, 144 * 10**9, 37 * 10**9)
    layer = LayerStorage(name, "nf4", *size, relative_error=0.12)
    other = LayerStorage("other", "bfloat16", *size)
    console = Console(width=80, record=True, file=StringIO())
    for by_layer in (True, False):
        quant_report._print_layers(console, SchemeReport("nf4", [layer], other), by_layer)
    rows = [re.split(r"\s{2,}", line.strip()) for line in console.export_text().splitlines()]
    figures = ["72.00 B", "137,329", "35,286", "4.111", "12.00%"]
    assert [name, *figures] in rows
    assert ["o_proj x 1", *figures, "12.00%", "12.00%"] in rows
    assert rows.count(["other", *figures[:-1]]) == rows.count(["linear layers", *figures[:-1]]) == 2


def test_perplexity_against_full_precision(report: Run, rows_file: Path, tmp_path: Path) -> None:
    words = ["--data", str(rows_file), "max_length=256", "--max-examples", "6", "--json", "figures.json"]
    result = report("--schemes", "nf4", *words)
    assert ": 6 rows, " in result.output
    figures: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
    full, nf4 = figures["schemes"]
    assert [each["scheme"] for each in (full, nf4)] == ["none", "nf4"]
    assert (figures["dtype"], figures["device"]) == ("float32", "cpu")
    # Random weights know nothing: about as many choices as tokens.
    assert 300 < full["perplexity"] < 600
    assert full["perplexity_rise"] == 0
    assert nf4["perplexity"] == pytest.approx(math.exp(nf4["nll"]))
    assert nf4["perplexity_rise"] == pytest.approx(nf4["perplexity"] / full["perplexity"] - 1)
    assert len(nf4["layers"]) == 14
    shown = rows_of(result)
    summary = next(line for line in reversed(shown) if line[0] == "nf4")
    assert summary[5:] == [f"{nf4['perplexity']:.3f}", f"{nf4['perplexity_rise']:+.2%}"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-examples", "3"], "--max-examples counts rows of --data"),
        (["--json", "no/figures.json"], "the folder 'no' does not exist"),
        (["quant.skip_modules=[dwn_proj]"], "'dwn_proj' matches no linear layer of this model"),
        (["--data", "hub:owner/rows"], "data.max_length=1024 is longer than the model allows"),
        (["--data", "none.jsonl", "max_length=256"], "none.jsonl"),
    ],
)
def test_wrong_words_are_refused(report: Run, words: list[str], says: str) -> None:
    with pytest.raises(LoralabError) as error:
        report(*words)
    assert says in str(error.value)


def test_it_runs_on_the_threads_that_were_asked_for(report: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert report("--schemes", "none").exit_code == 0
    assert asked == []
    assert report("--schemes", "none", "trainer.threads=1").exit_code == 0
    assert asked == [1]
