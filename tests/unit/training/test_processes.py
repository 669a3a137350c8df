"""How many processes train a run, and with which words they start."""

import sys
from typing import Any

import pytest

from loralab.config.load import JOB, compose_train, job_number
from loralab.config.schema import TrainerConfig
from loralab.distributed.place import Place
from loralab.errors import ConfigError
from loralab.training import processes
from loralab.training.processes import check_place, child_command, num_devices, run_training, start_others


def test_without_a_gpu_auto_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_devices(TrainerConfig(devices="auto", accelerator="cpu")) == 1
    assert num_devices(TrainerConfig(devices=3, accelerator="cpu")) == 3


def test_each_process_gets_the_words_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train.py", "--config-name", "train", "lora=r16"]
    assert child_command(words) == [sys.executable, *words]
    monkeypatch.setattr(processes, "job_number", lambda: 0)
    monkeypatch.setattr(processes, "task_overrides", lambda: ["lora=r8"])
    multirun = ["train.py", "-m", "-cd", "mine", "--config-name=train", "lora=r8,r16"]
    assert child_command(multirun) == [
        sys.executable, "train.py", "-cd", "mine", "--config-name=train", "lora=r8",
    ]  # fmt: skip


@pytest.mark.parametrize(("job", "told"), [(None, {}), (0, {JOB: "0"}), (3, {JOB: "3"})])
def test_a_job_of_a_multirun_tells_its_number(
    job: int | None, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def launch(command: list[str], count: int, environment: dict[str, str]) -> int:
        started.append((count, environment))
        return 5

    monkeypatch.setattr(processes, "launch", launch)
    monkeypatch.setattr(processes, "job_number", lambda: job)
    assert start_others(compose_train(["trainer.devices=2"])) == 5
    assert started == [(2, told)]
    monkeypatch.setenv(JOB, told.get(JOB, ""))
    assert job_number() == job


def test_one_process_starts_no_others() -> None:
    assert start_others(compose_train([])) is None


def test_a_multirun_is_refused_where_others_start_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": 1}
    for name, value in {**given, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(processes, "job_number", lambda: 1)
    with pytest.raises(ConfigError, match="-m does not go with torchrun or SLURM"):
        run_training(compose_train([]))


def test_several_machines_are_started_by_others() -> None:
    with pytest.raises(ConfigError, match="torchrun --nnodes 3 --nproc-per-node 4 --node-rank NUMBER"):
        start_others(compose_train(["trainer.num_nodes=3", "trainer.devices=4"]))


def test_processes_that_were_started_otherwise_are_refused() -> None:
    here = Place(0, 4, 0, 2)
    check_place(TrainerConfig(devices="auto", num_nodes=2), here)
    check_place(TrainerConfig(), here)
    with pytest.raises(ConfigError, match=r"trainer\.devices=4, but 2 were started"):
        check_place(TrainerConfig(devices=4), here)
    with pytest.raises(ConfigError, match=r"trainer\.num_nodes=3, but 2 were started"):
        check_place(TrainerConfig(num_nodes=3), here)
