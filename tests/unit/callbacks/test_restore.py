"""What a checkpoint keeps of an adapter's method, through the file and back."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
from rich.console import Console

from loralab.callbacks.checkpoints import Checkpoints
from loralab.callbacks.restore import Restore, check_same_adapter
from loralab.config.callbacks import CallbacksConfig
from loralab.errors import ModelError
from loralab.runs.checkpoint import load_checkpoint
from loralab.runs.folder import RunFolder


class Masters:
    """Weights of one number."""

    def __init__(self, value: float) -> None:
        self.value = torch.tensor([value])

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"w": self.value}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.value = state["w"]


class Module:
    """Stands in for a module whose method remembers something."""

    def __init__(self, value: float, method: dict[str, Any]) -> None:
        self.masters, self.method, self.device = Masters(value), method, torch.device("cpu")
        self.finished_steps, self.val_loss = 3, 0.5
        self.guard, self.plan = SimpleNamespace(episode=None), SimpleNamespace(val_interval=3)

    def method_state(self) -> dict[str, Any]:
        return self.method

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.method = state


class Counters(pl.Callback):
    """Stands in for a callback with a state."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def state_dict(self) -> dict[str, Any]:
        return {"tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tokens = state_dict["tokens"]


def callback(tmp_path: Path) -> Checkpoints:
    run = RunFolder(tmp_path)
    return Checkpoints(run, CallbacksConfig(), cast(Any, SimpleNamespace()), Console(quiet=True))


def test_the_methods_state_goes_through_the_checkpoint(tmp_path: Path) -> None:
    state = {"importance": {"a.lora_A": torch.tensor([0.1, 0.2])}, "rank_pattern": {"a": [True, False]}}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    saved, fresh = Module(1.5, state), Module(0.0, {})
    trainer = SimpleNamespace(optimizers=[optimizer], callbacks=[Counters(7)])
    callback(tmp_path).save(cast(Any, trainer), cast(Any, saved))

    restore = Restore(
        load_checkpoint(tmp_path / "checkpoints" / "step-3"), cast(Any, fresh), callback(tmp_path)
    )
    counters = Counters(0)
    restore.restore_callbacks([counters])
    assert counters.tokens == 7
    assert fresh.masters.value.item() == 1.5
    assert fresh.method["rank_pattern"] == {"a": [True, False]}
    assert torch.equal(fresh.method["importance"]["a.lora_A"], torch.tensor([0.1, 0.2]))


def test_options_that_were_allowed_to_change_are_those_of_now(tmp_path: Path) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    before = torch.optim.SGD(parameters, lr=0.1, weight_decay=0.5, momentum=0.25)
    now: Any = torch.optim.SGD(parameters, lr=0.2, weight_decay=0.0, momentum=0.75)
    trainer = cast(Any, SimpleNamespace(optimizers=[before], callbacks=[]))
    callback(tmp_path).save(trainer, cast(Any, Module(1.5, {})))
    checkpoint = load_checkpoint(tmp_path / "checkpoints" / "step-3")
    restore = Restore(checkpoint, cast(Any, Module(0.0, {})), callback(tmp_path), ["weight_decay"])
    restore.on_train_start(cast(Any, SimpleNamespace(optimizers=[now])), cast(Any, Module(0.0, {})))
    group = now.param_groups[0]
    assert (group["weight_decay"], group["momentum"], group["lr"]) == (0.0, 0.25, 0.1)


@pytest.mark.parametrize(
    ("saved", "now"), [({"w": [1, 4]}, {"w": [8, 4]}), ({"w": [8, 4]}, {"v": [8, 4]}), ({}, {"w": [1]})]
)
def test_weights_of_another_adapter_are_refused(saved: dict[str, Any], now: dict[str, Any]) -> None:
    ours, theirs = ({name: torch.zeros(shape) for name, shape in each.items()} for each in (saved, now))
    with pytest.raises(ModelError, match=r"the run's checkpoint does not fit: [wv] is"):
        check_same_adapter(ours, theirs)
    check_same_adapter(theirs, theirs)
