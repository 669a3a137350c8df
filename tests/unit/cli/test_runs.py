"""`loralab runs` on run folders made by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from loralab.cli.main import app
from loralab.config.load import to_yaml
from loralab.config.schema import TrainConfig
from loralab.runs.checkpoint import Checkpoint, save_checkpoint, sha256_of
from loralab.runs.folder import RunFolder
from loralab.runs.lock import hold
from loralab.runs.series import point, step_dir
from loralab.runs.verify import differing_tensors

Runs = Callable[..., Result]
NAME = "base_model.model.q.lora_A.default.weight"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Result:
        result = CliRunner().invoke(app, ["runs", *words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def make_run(outputs: Path, name: str, status: str = "completed", day: int = 1) -> RunFolder:
    """A run of eight steps, validated after 4 and 8, with the best at 4."""
    run = RunFolder(outputs / "train" / name)
    run.adapter_dir.mkdir(parents=True)
    rows = outputs / "rows.jsonl"
    rows.write_text("{}\n")
    run.config_path.write_text(to_yaml(TrainConfig()))
    run.overrides_path.write_text("[]\n")
    run.data_path.write_text("{}")
    data = [{"path": str(rows), "sha256": sha256_of(rows)}]
    created = f"2026-01-0{day}T10:00:00+00:00"
    run.manifest_path.write_text(json.dumps({"created": created, "data": data}))
    summary = {"run_id": name, "status": status, "step": 8, "val/loss": 0.25, "wall_s": 3.0}
    run.summary_path.write_text(json.dumps(summary))
    (run.path / "report.html").write_text("")
    lines = [{"step": 0, "val/loss": 2.0}]
    for step in range(1, 9):
        lines.append({"step": step, "train/loss": 1.0 / step})
        if step % 4 == 0:
            lines.append({"step": step, "val/loss": 1.0})
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    best = {"step": 4, "val_loss": 0.25}
    for step in (4, 8):
        weights = {NAME: torch.full((2, 3), float(step))}
        progress = {"step": step, "val_loss": 0.25, "val_step": step, "best": best}
        save_checkpoint(step_dir(run.checkpoints_dir, step), Checkpoint(weights, {}, progress))
    point(run.checkpoints_dir, "last", 8)
    (run.adapter_dir / "adapter_config.json").write_text("{}")
    saved = {NAME.replace(".default", ""): torch.full((2, 3), 4.0)}
    save_file(saved, run.adapter_dir / "adapter_model.safetensors")
    return run


def test_runs_are_listed_newest_first_with_what_they_are(runs: Runs, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for name, status, day in (("a", "completed", 1), ("b", "running", 3), ("c", "running", 2)):
        make_run(outputs, name, status, day)
    with hold(RunFolder(outputs / "train" / "c")):
        printed = runs("list").stdout.splitlines()
    assert [line.split() for line in printed[2:]] == [
        ["b", "stopped", "8", "0.2500", "2026-01-03", "10:00"],
        ["c", "running", "8", "0.2500", "2026-01-02", "10:00"],
        ["a", "completed", "8", "0.2500", "2026-01-01", "10:00"],
    ]


def test_no_folder_and_no_run(runs: Runs, tmp_path: Path) -> None:
    missing = runs("list", "--outputs", "elsewhere")
    assert (missing.exit_code, "--outputs elsewhere: there is no such folder" in missing.stderr) == (2, True)
    (tmp_path / "outputs").mkdir()
    assert "no run in outputs/train" in runs("list").stdout
    wrong = runs("show", "abc")
    assert (wrong.exit_code, "RUN=abc is not a run" in wrong.stderr) == (2, True)


def test_a_run_is_shown(runs: Runs, tmp_path: Path) -> None:
    run = make_run(tmp_path / "outputs", "a")
    manifest = json.loads(run.manifest_path.read_text())
    manifest["resumed"] = [{"step": 4, "changes": ["optim.lr: 0.1 in the run, 0.2 now"]}]
    run.manifest_path.write_text(json.dumps(manifest))
    printed = runs("show", "a").stdout
    assert "checkpoints  step-8, step-4" in printed
    assert "val/loss     0.25" in printed
    assert "from step 4 on  optim.lr: 0.1 in the run, 0.2 now" in printed


def test_a_whole_run_is_whole(runs: Runs, tmp_path: Path) -> None:
    make_run(tmp_path / "outputs", "a")
    done = runs("verify", "a")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "outputs/train/a is whole: files, metrics, 2 checkpoints, adapter, data" in done.stdout


def test_an_adapter_that_is_not_there_yet_is_not_called_whole(runs: Runs, tmp_path: Path) -> None:
    run = make_run(tmp_path / "outputs", "a", status="interrupted")
    for file in run.adapter_dir.iterdir():
        file.unlink()
    assert "2 checkpoints, no adapter yet, data" in runs("verify", "a").stdout


def swap_lines(run: RunFolder) -> None:
    lines = run.metrics_path.read_text().splitlines(keepends=True)
    run.metrics_path.write_text("".join([*lines[:2], lines[3], lines[2], *lines[4:]]))


def flip_bit(run: RunFolder) -> None:
    path = step_dir(run.checkpoints_dir, 8) / "adapter.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_adapter(run: RunFolder) -> None:
    path = run.adapter_dir / "adapter_model.safetensors"
    tensors = {name: value + 2**-20 for name, value in load_file(path).items()}
    save_file(tensors, path)


FAULTS: list[tuple[Callable[[RunFolder], object], str]] = [
    (lambda run: run.data_path.unlink(), "data.json is missing"),
    (lambda run: (run.path / "report.html").unlink(), "report.html is missing"),
    (lambda run: run.manifest_path.write_text("{"), "manifest.json is no JSON"),
    (lambda run: run.config_path.write_text("lora: {rr: 1}"), "config.yaml: "),
    (lambda run: run.metrics_path.write_text(run.metrics_path.read_text()[:-3]), "the last line is cut off"),
    (lambda run: run.metrics_path.write_text("[]\n"), "metrics.jsonl line 1 is no JSON object with a step"),
    (swap_lines, "metrics.jsonl line 4: step 2 comes after step 3"),
    (flip_bit, "checkpoints/step-8/adapter.safetensors is damaged"),
    (
        lambda run: step_dir(run.checkpoints_dir, 4).rename(run.checkpoints_dir / "step-5"),
        "checkpoints/step-5 is that of step 4",
    ),
    (
        lambda run: step_dir(run.checkpoints_dir, 8).rename(run.path / "x"),
        "checkpoints/last leads to step-8, which is not there",
    ),
    (
        change_adapter,
        f"1 tensors, such as {NAME.replace('.default', '')}, are not those of checkpoints/step-4",
    ),
    (
        lambda run: (run.adapter_dir / "adapter_model.safetensors").write_bytes(b"x" * 9),
        "adapter/adapter_model.safetensors cannot be opened",
    ),
    (
        lambda run: (run.path / "../../rows.jsonl").write_text("[]"),
        "rows.jsonl has changed since the run began",
    ),
    (lambda run: (run.path / "../../rows.jsonl").unlink(), "rows.jsonl is gone"),
]


MORE = (
    "metrics.jsonl line 1 is no JSON object with a step", "metrics.jsonl line 4: step 2 comes after step 3",
    "the last line is cut off", "checkpoints/step-5 is that of step 4",
)  # fmt: skip
"""Faults that bring others with them."""


@pytest.mark.parametrize(("damage", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_every_fault_is_found(
    runs: Runs, tmp_path: Path, damage: Callable[[RunFolder], object], fault: str
) -> None:
    damage(make_run(tmp_path / "outputs", "a"))
    done = runs("verify", "a")
    assert done.exit_code == 2
    assert "has 1 fault" in done.stderr or fault in MORE
    assert fault in done.stderr
    assert "Traceback" not in done.stderr


def test_tensors_of_twice_the_rank_begin_with_the_checkpoints() -> None:
    ours = {NAME: torch.arange(6.0).reshape(2, 3)}
    name = NAME.replace(".default", "")
    assert differing_tensors(ours, {name: torch.cat([ours[NAME], torch.zeros(2, 3)])}) == []
    assert differing_tensors(ours, {name: torch.cat([torch.zeros(2, 3), ours[NAME]])}) == [name]
    assert differing_tensors(ours, {name: torch.zeros(1, 3)}) == []  # pruned ranks say nothing


def test_a_tensor_that_the_adapter_lost_is_told_and_one_that_is_saved_in_another_form_is_not() -> None:
    assert differing_tensors({NAME: torch.zeros(2, 3)}, {}) == [NAME.replace(".default", "")]
    assert differing_tensors({"prompt_encoder.default.embedding.weight": torch.zeros(2, 3)}, {}) == []
