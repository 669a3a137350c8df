"""What differs between two configs, and what may differ on resume."""

import pytest

from loralab.config.changes import find_changes, is_below, with_values
from loralab.config.resume_rules import allowed_keys
from loralab.config.schema import OptimConfig, RunConfig, TrainConfig, TrainerConfig
from loralab.config.validate import validate_train
from loralab.errors import ConfigError


def test_changes_are_told_key_by_key() -> None:
    before = TrainConfig(optim=OptimConfig(lr=0.001))
    now = TrainConfig(optim=OptimConfig(lr=0.002), trainer=TrainerConfig(max_steps=5))
    assert [str(change) for change in find_changes(before, now)] == [
        "trainer.max_steps: null in the run, 5 now",
        "optim.lr: 0.001 in the run, 0.002 now",
    ]
    assert find_changes(before, TrainConfig(optim=OptimConfig(lr=0.001))) == []


def test_values_are_replaced_in_a_copy_and_nothing_is_derived() -> None:
    before = TrainConfig()
    after = with_values(before, {"lora.r": 4, "seed": 3})
    assert (after.lora.r, after.lora.alpha, after.seed) == (4, before.lora.alpha, 3)
    assert (before.lora.r, before.seed) == (16, 0)


def test_groups_hold_their_keys_and_no_others() -> None:
    assert is_below("logger.mode", ["logger"])
    assert is_below("seed", ["seed"])
    assert not is_below("lora.rank_pattern", ["lora.rank"])


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (["optim.lr", "data"], ["optim.lr", "data"]),
        ("optim.lr,seed", ["optim.lr", "seed"]),
        (True, []),
        (False, []),
    ],
)
def test_allowed_keys_are_a_list_or_a_word(given: object, keys: list[str]) -> None:
    config = TrainConfig(resume="r", resume_changes=given)
    validate_train(config)
    assert allowed_keys(config) == keys


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            TrainConfig(resume="r", resume_changes=["optim.rl"]),
            r"resume_changes=optim.rl is unknown.*'optim.lr'",
        ),
        (TrainConfig(resume_changes=True), r"Give resume=RUN, or leave it out"),
        (TrainConfig(resume="r", run=RunConfig(name="n")), "under its own id"),
        (TrainConfig(resume="auto", dry_run=True), "dry_run plans a new run"),
    ],
)
def test_what_contradicts_resume_is_refused(config: TrainConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_train(config)


def test_auto_may_have_a_name() -> None:
    assert validate_train(TrainConfig(resume="auto", run=RunConfig(name="n"))) is None
