"""Every logger carries the same names; what it keeps is read back."""

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loralab.config.schema import LoggerConfig, OptimConfig, TrainConfig
from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder, read_json
from loralab.training.loggers import (
    build_loggers,
    described,
    finish_loggers,
    keep_adapter,
    show_samples,
)

ROWS = [{"prompt": "2+2", "reference": "4", "answer": "five"}]
BLOCK, HEADER, FULL, LAST = 32768, 7, 1, 4
"""How W&B's file is cut: blocks, and in them parts of records behind a checksum, a length and a kind."""


def run_folder(tmp_path: Path, name: str = "r") -> RunFolder:
    adapter = tmp_path / name / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    return RunFolder(tmp_path / name)


def records(raw: bytes) -> Iterator[Any]:
    """Reads back what W&B has written for a run without a network."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, whole = HEADER, b""
    while at + HEADER <= len(raw):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        size, kind = struct.unpack("<HB", raw[at + 4 : at + HEADER])
        whole += raw[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (FULL, LAST):
            yield Record.FromString(whole)
            whole = b""


def wandb_records(run: RunFolder) -> list[Any]:
    """Ends the W&B run and reads it back, once its end is there."""
    finish_loggers({"val/loss": 0.25, "status": "completed", "test/exact_match": None})
    (written,) = run.path.glob("wandb/offline-run-*/*.wandb")
    # W&B writes from a process of its own, which may be a moment behind.
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = list(records(written.read_bytes()))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError("no end of the run")


def log_all(run: RunFolder, **logger: str) -> list:
    loggers = build_loggers(TrainConfig(logger=LoggerConfig(**logger)), run)
    for each in loggers:
        each.log_metrics({"train/loss": 2.5, "incident/count": 1}, 3)
        if hasattr(each, "show_rows"):
            each.show_rows("watch", 3, ROWS)
    show_samples(loggers, 3, [{"prompt": "1+1", "base": "?", "tuned": "2", "tuned_match": True}])
    keep_adapter(loggers, run.adapter_dir)
    for each in loggers:
        each.finalize("success")
    return loggers


@pytest.mark.parametrize("logger", [{"name": "local"}, {"name": "wandb", "mode": "disabled"}])
def test_the_local_file_is_always_there_and_disabled_leaves_it_alone(
    tmp_path: Path, logger: dict[str, str]
) -> None:
    run = run_folder(tmp_path)
    assert len(log_all(run, **logger)) == 1
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
    (sample,) = events.Tensors("samples/0/text_summary")
    assert b"**tuned**: 2" in sample.tensor_proto.string_val[0]


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


def test_mlflow_keeps_runs_of_one_name_apart(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'all.db'}"
    first, second = (log_all(run_folder(tmp_path / each), name="mlflow", uri=uri)[1] for each in "ab")
    assert first.version != second.version


def test_mlflow_takes_a_changed_config_when_a_run_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    run = run_folder(tmp_path)
    first = log_all(run, name="mlflow")[1]
    assert read_json(run.manifest_path)["mlflow_run"] == first.version
    changed = TrainConfig(logger=LoggerConfig(name="mlflow"), optim=OptimConfig(lr=0.5))
    again = build_loggers(changed, run)[1]
    kept = again.experiment.get_run(first.version)
    assert kept.data.params["optim/lr"] == "0.002"
    assert kept.data.tags["now/optim/lr"] == "0.5"
    assert kept.info.status == "RUNNING"


def test_a_parameter_is_told_once_and_then_what_it_is_now() -> None:
    first, _ = described(TrainConfig(), {}, {})
    assert (first["optim/lr"], first["lora/r"], first["callbacks/stability/window"]) == ("0.002", "16", "64")
    assert described(TrainConfig(), first, {}) == ({}, {})
    changed = TrainConfig(optim=OptimConfig(lr=0.5))
    assert described(changed, first, {}) == ({}, {"now/optim/lr": "0.5"})
    assert described(changed, first, {"now/optim/lr": "0.5"}) == ({}, {})
    assert described(TrainConfig(), first, {"now/optim/lr": "0.5"}) == ({}, {"now/optim/lr": "0.002"})
    del first["lora/r"]  # a key that the version which began the run did not know
    assert described(TrainConfig(), first, {}) == ({"lora/r": "16"}, {})


def test_wandb_offline_keeps_config_metrics_tables_summary_and_adapter(tmp_path: Path) -> None:
    run = run_folder(tmp_path, "a run (2)")
    log_all(run, name="wandb", mode="offline")
    found = wandb_records(run)
    begun = next(record.run for record in found if record.HasField("run"))
    assert (begun.run_id, begun.project) == ("a run (2)", "loralab")
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert (config["lora"]["r"], config["optim"]["lr"], config["seed"]) == (16, 0.002, 0)
    history = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    lines = [{k: v for k, v in line.items() if not k.startswith("_")} for line in history]
    assert lines[0] == {"train/loss": 2.5, "incident/count": 1, "trainer/global_step": 3}
    assert (lines[1]["trainer/global_step"], lines[1]["watch/nrows"]) == (3, 1)
    assert (lines[2]["trainer/global_step"], lines[2]["samples/nrows"]) == (3, 1)
    summary = {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in found
        for item in record.summary.update
    }
    assert (summary["val/loss"], summary["status"], summary["train/loss"]) == (0.25, "completed", 2.5)
    assert "test/exact_match" not in summary
    artifacts = {(r.artifact or r.request.log_artifact.artifact).name for r in found if "artifact" in str(r)}
    assert "adapter-a-run-2-" in artifacts
    (table,) = run.path.glob("wandb/offline-run-*/files/media/table/watch*.json")
    assert json.loads(table.read_text()) == {
        "columns": ["step", "prompt", "reference", "answer"], "data": [[3, "2+2", "4", "five"]]
    }  # fmt: skip


def test_the_table_of_a_resumed_run_holds_the_answers_from_before(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    earlier = {"step": 0, "prompt": "2+2", "reference": "4", "answer": "one\u2028two"}
    run.watch_path.write_text(json.dumps(earlier, ensure_ascii=False) + "\n", encoding="utf-8")
    log_all(run, name="wandb", mode="offline")
    finish_loggers({})
    (table,) = run.path.glob("wandb/offline-run-*/files/media/table/watch*.json")
    assert json.loads(table.read_text())["data"] == [list(earlier.values()), [3, "2+2", "4", "five"]]


@pytest.mark.parametrize(
    ("name", "module"), [("wandb", "wandb"), ("tensorboard", "tensorboard"), ("mlflow", "mlflow")]
)
def test_a_logger_that_is_not_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"logger={name} needs .* Run .pip install 'loralab\[{name}\]'"):
        build_loggers(TrainConfig(logger=LoggerConfig(name=name)), run_folder(tmp_path))
