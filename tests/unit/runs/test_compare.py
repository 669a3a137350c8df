import json
from pathlib import Path

import torch

from loralab.runs.checkpoint import Checkpoint, save_checkpoint
from loralab.runs.compare import compare_runs, differences, logged_lines
from loralab.runs.folder import RunFolder
from loralab.runs.series import step_dir


def make_run(folder: Path, weight: float = 1.0, loss: float = 0.5, speed: float = 3.0) -> RunFolder:
    run = RunFolder(folder)
    state = {
        "optimizer": {"state": {0: {"m": torch.ones(3)}}},
        "method": {"scaler": {"factor": 2.0}},
        "callbacks": {"Recorder": {"train_s": speed}, "EarlyStopping": {"best": loss, "waited": 0}},
        "random": {"torch": torch.zeros(2)},
        "random_of_others": [{"torch": torch.full((1,), weight)}],
    }
    save_checkpoint(step_dir(run.checkpoints_dir, 2), Checkpoint({"a": torch.full((2,), weight)}, state, {}))
    line = {"step": 1, "train/loss": loss, "train/tokens_per_s": speed}
    run.metrics_path.write_text(f'{json.dumps(line)}\n{{"step": 1, "memory/steady_peak_gib": {speed}}}\n')
    run.summary_path.write_text(json.dumps({"run_id": str(folder), "step": 2, "wall_s": speed}))
    return run


def test_runs_that_differ_in_time_alone_are_the_same(tmp_path: Path) -> None:
    verdicts = compare_runs(make_run(tmp_path / "a"), make_run(tmp_path / "b", speed=9.0))
    assert [(each.part, each.num_values, each.differences) for each in verdicts] == [
        ("weights", 2, ()),
        ("optimizer state", 3, ()),
        ("method's state", 1, ()),
        ("callbacks", 2, ()),
        ("random generators", 3, ()),
        ("logged numbers", 2, ()),
        ("summary", 1, ()),
    ]


def test_the_last_bit_counts(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", weight=1.0 + 2**-23, loss=0.5 + 2**-53)
    found = {each.part: each.differences for each in compare_runs(one, other)}
    assert found["weights"] == ("/a",)
    assert found["logged numbers"] == ("/0/train/loss: 0.5 and 0.5000000000000001",)
    assert found["callbacks"] == ("/EarlyStopping/best: 0.5 and 0.5000000000000001",)
    assert found["random generators"] == ("/1/torch",)
    assert found["optimizer state"] == ()


def test_a_loss_that_is_not_a_number_is_the_same_in_both() -> None:
    nan = float("nan")
    assert list(differences([nan, 1.0], [nan, 1.0])) == []
    assert list(differences([nan], [1.0])) == ["/0: nan and 1.0"]


def test_what_one_lacks_is_told() -> None:
    assert list(differences({"a": 1}, {"b": 1})) == ["/a is in one of them only", "/b is in one of them only"]
    assert list(differences([1, 2], [1])) == [" has 2 and 1 entries"]
    assert list(differences(torch.zeros(2), torch.zeros(2, dtype=torch.float64), "x")) == ["x"]


def test_lines_of_memory_alone_are_left_out(tmp_path: Path) -> None:
    assert logged_lines(make_run(tmp_path).metrics_path) == [{"step": 1, "train/loss": 0.5}]
