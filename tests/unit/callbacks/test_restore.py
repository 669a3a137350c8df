"""What a checkpoint keeps of an adapter's method, through the file and back."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from loralab.callbacks.checkpoints import Checkpoints
from loralab.callbacks.restore import Restore
from loralab.runs.checkpoint import load_checkpoint


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

    def method_state(self) -> dict[str, Any]:
        return self.method

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.method = state


class Counters:
    """Stands in for the recorder."""

    def state_dict(self) -> dict[str, Any]:
        return {"tokens": 7}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state == {"tokens": 7}


def test_the_methods_state_goes_through_the_checkpoint(tmp_path: Path) -> None:
    state = {"importance": {"a.lora_A": torch.tensor([0.1, 0.2])}, "rank_pattern": {"a": [True, False]}}
    run, counters = cast(Any, SimpleNamespace(checkpoints_dir=tmp_path)), cast(Any, Counters())
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    callback = Checkpoints(run, None, counters)
    saved, fresh = Module(1.5, state), Module(0.0, {})
    callback.save(cast(Any, SimpleNamespace(optimizers=[optimizer])), cast(Any, saved), "last")

    Restore(load_checkpoint(tmp_path / "last"), cast(Any, fresh), counters, Checkpoints(run, None, counters))
    assert fresh.masters.value.item() == 1.5
    assert fresh.method["rank_pattern"] == {"a": [True, False]}
    assert torch.equal(fresh.method["importance"]["a.lora_A"], torch.tensor([0.1, 0.2]))
