"""Every logger carries the same names; what it keeps is read back."""

import json
import sys
import time
from pathlib import Path

import pytest

from loralab.config.schema import LoggerConfig, TrainConfig
from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder
from loralab.training.loggers import build_loggers, finish_loggers, keep_adapter

ROWS = [{"prompt": "2+2", "reference": "4", "answer": "five"}]


def run_folder(tmp_path: Path) -> RunFolder:
    adapter = tmp_path / "r" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    return RunFolder(tmp_path / "r")


def log_all(run: RunFolder, **logger: str) -> list:
    loggers = build_loggers(TrainConfig(logger=LoggerConfig(**logger)), run)
    for each in loggers:
        each.log_metrics({"train/loss": 2.5, "incident/count": 1}, 3)
        if hasattr(each, "show_answers"):
            each.show_answers(3, ROWS)
    keep_adapter(loggers, run.adapter_dir)
    for each in loggers:
        each.finalize("success")
    return loggers


def names_in(raw: bytes) -> set[bytes]:
    return {name for name in (b"train/loss", b"adapter-r") if name in raw}


@pytest.mark.parametrize("name", ["local", "wandb", "mlflow"])
def test_the_local_file_is_always_there_and_disabled_leaves_it_alone(tmp_path: Path, name: str) -> None:
    run = run_folder(tmp_path)
    assert len(log_all(run, name=name, mode="disabled")) == 1
    assert json.loads(run.metrics_path.read_text()) == {"step": 3, "train/loss": 2.5, "incident/count": 1}


def test_tensorboard_holds_the_same_names(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_folder(tmp_path)
    log_all(run, name="tensorboard")
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    (point,) = events.Scalars("train/loss")
    assert (point.step, point.value) == (3, 2.5)
    assert "incident/count" in events.Tags()["scalars"]
    (text,) = events.Tensors("watch/0/text_summary")
    assert text.step == 3
    assert b"five" in text.tensor_proto.string_val[0]


def test_mlflow_holds_the_same_names_and_a_resumed_run_goes_on_in_it(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    run = run_folder(tmp_path)
    first = log_all(run, name="mlflow")[1]
    client = MlflowClient(f"sqlite:///{run.path / 'mlflow.db'}")
    again = build_loggers(TrainConfig(logger=LoggerConfig(name="mlflow")), run)[1]
    assert again.version == first.version
    again.log_metrics({"train/loss": 2.0}, 4)
    points = client.get_metric_history(first.version, "train/loss")
    assert [(point.step, point.value) for point in points] == [(3, 2.5), (4, 2.0)]
    kept = client.get_run(first.version)
    assert kept.data.params["optim/lr"] == "0.002"
    assert list(run.path.glob("mlflow/**/adapter/adapter_config.json"))
    (table,) = run.path.glob("mlflow/**/watch/3.json")
    assert json.loads(table.read_text())["answer"] == ["five"]


def test_wandb_offline_keeps_metrics_table_and_adapter(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(tmp_path)
    log_all(run, name="wandb", mode="offline")
    finish_loggers()
    assert "WARNING" not in "".join(capfd.readouterr())
    (folder,) = run.path.glob("wandb/offline-run-*")
    (written,) = folder.glob("*.wandb")
    # W&B writes from a process of its own, which may be a moment behind.
    until = time.monotonic() + 20
    while time.monotonic() < until and not {b"train/loss", b"adapter-r"} <= names_in(written.read_bytes()):
        time.sleep(0.1)
    assert names_in(written.read_bytes()) == {b"train/loss", b"adapter-r"}
    (table,) = folder.glob("files/media/table/watch*.json")
    assert json.loads(table.read_text()) == {
        "columns": ["step", "prompt", "reference", "answer"], "data": [[3, "2+2", "4", "five"]]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "module"), [("wandb", "wandb"), ("tensorboard", "tensorboard"), ("mlflow", "mlflow")]
)
def test_a_logger_that_is_not_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"logger={name} needs .* Run .pip install 'loralab\[{name}\]'"):
        build_loggers(TrainConfig(logger=LoggerConfig(name=name)), run_folder(tmp_path))
