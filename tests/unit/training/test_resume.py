"""Which run is continued, and what may differ from it."""

import json
from pathlib import Path

import pytest

from loralab.config.load import compose_train, to_yaml
from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder
from loralab.training.resume import Resumed, check_same_processes, reopen


def make_run(outputs: Path, *words: str, status: str = "interrupted") -> RunFolder:
    """The folder of a run that was stopped."""
    run = RunFolder(outputs / "train" / "mine")
    run.path.mkdir(parents=True)
    run.config_path.write_text(to_yaml(compose_train([f"run.outputs_dir={outputs}", *words])))
    run.summary_path.write_text(json.dumps({"status": status}))
    return run


def resume(outputs: Path, *words: str) -> Resumed | None:
    typed = ["resume=mine", f"run.outputs_dir={outputs}", *words]
    return reopen(compose_train(typed), typed)


def test_a_run_goes_on_with_its_own_config(tmp_path: Path) -> None:
    make_run(tmp_path, "lora.r=12", "callbacks.log_every=7")
    resumed = resume(tmp_path, "callbacks.log_every=3")
    assert resumed is not None
    assert (resumed.config.lora.r, resumed.config.callbacks.log_every, resumed.changes) == (12, 3, ())


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("optim.name=lion", "optim.name"),
        ("optim.lora_plus_ratio=4", "optim.lora_plus_ratio"),
        ("optim.lr_pattern={q_proj:2.0}", "optim.lr_pattern"),
        ("optim.decay_vectors=true", "optim.decay_vectors"),
    ],
)
def test_what_the_state_of_the_optimizer_is_made_for_never_changes(
    tmp_path: Path, word: str, key: str
) -> None:
    make_run(tmp_path, "optim.weight_decay=0.1")
    with pytest.raises(ConfigError, match=f"{key}.*The optimizer's state in the checkpoint is made for"):
        resume(tmp_path, word, "optim.weight_decay=0.1", "resume_changes=true")


def test_allowed_changes_must_suit_the_rest_of_the_run(tmp_path: Path) -> None:
    make_run(tmp_path, "data.packing=true")
    with pytest.raises(ConfigError, match=r"trainer\.batch_tokens has no place"):
        resume(tmp_path, "trainer.batch_tokens=4096", "resume_changes=[trainer.batch_tokens]")


def test_what_is_typed_must_have_an_effect_in_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ConfigError, match=r"logger\.mode=offline has no effect with logger=local"):
        resume(tmp_path, "logger.mode=offline")
    run.config_path.write_text(to_yaml(compose_train([f"run.outputs_dir={tmp_path}", "logger=wandb"])))
    resumed = resume(tmp_path, "logger.mode=offline")
    assert resumed is not None
    assert resumed.config.logger.mode == "offline"


def test_a_complete_run_goes_on_with_more_steps_only(tmp_path: Path) -> None:
    make_run(tmp_path, "trainer.max_steps=4", status="completed")
    with pytest.raises(ConfigError, match="the run is complete"):
        resume(tmp_path)
    longer = resume(tmp_path, "trainer.max_steps=8", "resume_changes=[trainer.max_steps]")
    assert longer is not None
    assert [str(change) for change in longer.changes] == ["trainer.max_steps: 4 in the run, 8 now"]


def test_a_run_goes_on_in_as_many_processes_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, "trainer.devices=2")
    resumed = resume(tmp_path)
    assert resumed is not None
    with pytest.raises(ConfigError, match="mine trains in 2 processes on each of 1 machines, but 1 on 1"):
        check_same_processes(resumed)
    told = {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": 1}
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "here")
    check_same_processes(resumed)


def test_another_number_of_processes_is_listed_and_refused_unless_allowed(tmp_path: Path) -> None:
    make_run(tmp_path, "trainer.devices=2")
    with pytest.raises(ConfigError, match=r"trainer\.devices: 2 in the run, 4 now"):
        resume(tmp_path, "trainer.devices=4")
    resumed = resume(tmp_path, "trainer.devices=4", "resume_changes=[trainer.devices]")
    assert resumed is not None
    assert resumed.config.trainer.devices == 4
