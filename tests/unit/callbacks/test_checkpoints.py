"""When checkpoints are saved, and going back to one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from rich.console import Console

from loralab.callbacks import checkpoints as module
from loralab.callbacks.checkpoints import Checkpoints
from loralab.config.callbacks import CallbacksConfig
from loralab.data.plan import StepPlan
from loralab.distributed.votes import Votes
from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder
from loralab.runs.series import saved_steps

CPU = torch.device("cpu")


class Masters:
    """A weight of one number."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"w": self.weight.detach().clone()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.weight.data.copy_(state["w"])


class Module:
    """Stands in for a module that validates every ten steps."""

    def __init__(self) -> None:
        self.masters, self.device = Masters(), CPU
        self.finished_steps, self.val_loss = 0, 0.5
        self.plan = StepPlan(num_rows=40, rows_per_step=1, epochs=1, max_steps=None, val_every=10, seed=0)
        self.method: dict[str, Any] = {}
        self.votes, self.peak_lr = Votes(), 0.1
        self.guard = SimpleNamespace(episode=None)

    def method_state(self) -> dict[str, Any]:
        return self.method

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.method = state


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Steps:
    """Runs steps through a callback as the loop does."""

    def __init__(self, folder: Path, **config: Any) -> None:
        recorder = SimpleNamespace(flush=lambda trainer, module: None)
        self.callback: Any = Checkpoints(
            RunFolder(folder), CallbacksConfig(**config), cast(Any, recorder), Console(quiet=True)
        )
        self.module = Module()
        self.optimizer = torch.optim.SGD([self.module.masters.weight], lr=0.1, momentum=0.9)
        self.trainer = SimpleNamespace(optimizers=[self.optimizer], callbacks=[])
        self.callback.on_train_start(self.trainer, self.module)

    def take(self, count: int = 1) -> None:
        for _ in range(count):
            self.callback.on_train_batch_start(self.trainer, self.module)
            self.module.masters.weight.grad = torch.ones(1)
            self.callback.on_before_optimizer_step(self.trainer, self.module, self.optimizer)
            self.optimizer.step()
            self.module.finished_steps += 1
            self.callback.on_train_batch_end(self.trainer, self.module)
            if self.module.finished_steps % 10 == 0:
                self.callback.on_validation_start(self.trainer, self.module)
                self.callback.on_validation_end(self.trainer, self.module)


def test_steps_and_validations_save_once_each(tmp_path: Path) -> None:
    steps = Steps(tmp_path, checkpoint_every=4, checkpoint_minutes=None, keep_last=99)
    steps.take(20)
    assert saved_steps(tmp_path / "checkpoints") == [20, 16, 12, 10, 8, 4]
    assert (tmp_path / "checkpoints" / "last").readlink() == Path("step-20")
    assert (tmp_path / "checkpoints" / "best").readlink() == Path("step-10")


def test_minutes_count_from_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", clock := Clock())
    steps = Steps(tmp_path, checkpoint_minutes=2.0, keep_last=99)
    for second in (60, 119, 120, 200, 239, 245):
        clock.now = float(second)
        steps.take()
    assert saved_steps(tmp_path / "checkpoints") == [6, 3]


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    steps = Steps(tmp_path, checkpoint_every=3, checkpoint_minutes=None)
    steps.take(10)
    steps.module.val_loss = 0.75
    steps.take(8)
    assert saved_steps(tmp_path / "checkpoints") == [18, 15, 10]


def test_going_back_restores_weights_and_optimizer_and_no_counter(tmp_path: Path) -> None:
    steps = Steps(tmp_path, checkpoint_every=1, checkpoint_minutes=None, keep_last=99)
    steps.take(2)
    # Two steps of gradient 1, rate 0.1 and momentum 0.9: velocity 1, then 1.9.
    assert steps.module.masters.weight.item() == pytest.approx(-0.29)
    steps.take(2)
    assert steps.callback.roll_back(steps.trainer, steps.module, before=2) == 2
    assert steps.module.masters.weight.item() == pytest.approx(-0.29)
    momentum = steps.optimizer.state[steps.module.masters.weight]["momentum_buffer"]
    assert momentum.item() == pytest.approx(1.9)
    assert steps.module.finished_steps == 4
    assert steps.callback.roll_back(steps.trainer, steps.module, before=0) is None


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    steps = Steps(tmp_path, checkpoint_every=1)
    steps.take(2)
    steps.module.masters.weight.data.fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"weights are not finite after step 3.*optim.lr=0.1"):
        steps.take()
    assert saved_steps(RunFolder(tmp_path).checkpoints_dir) == [2, 1]


def test_what_a_spike_would_go_back_to_is_kept(tmp_path: Path) -> None:
    steps = Steps(tmp_path, checkpoint_every=5, keep_last=1)
    steps.take(6)
    steps.module.guard.episode = {"start": 6}
    steps.callback.config.checkpoint_every = 1
    steps.take(3)
    # With a checkpoint every step now, the newest planned one before the spike is that of step 6; before
    # it only 5 was saved.
    assert saved_steps(RunFolder(tmp_path).checkpoints_dir) == [9, 5]
    steps.module.guard.episode = None
    steps.take()
    assert saved_steps(RunFolder(tmp_path).checkpoints_dir) == [10]


@pytest.mark.parametrize(
    ("stops_in", "said"),
    [
        ("update", "the error came while the weights changed"),
        ("callback", "the error came after the step, before it was written down"),
        ("skipped", "the error came after the step, before it was written down"),
    ],
)
def test_an_error_says_why_its_step_is_not_saved(stops_in: str, said: str, tmp_path: Path) -> None:
    steps, lines = Steps(tmp_path, checkpoint_every=1), []
    steps.callback.console = SimpleNamespace(print=lambda line, **how: lines.append(line))
    steps.take()
    steps.callback.on_train_batch_start(steps.trainer, steps.module)
    if stops_in != "skipped":
        steps.callback.on_before_optimizer_step(steps.trainer, steps.module, steps.optimizer)
    if stops_in != "update":
        steps.module.finished_steps += 1
    steps.callback.on_exception(steps.trainer, steps.module, ConfigError("wrong"))
    assert said in lines[0]
    assert saved_steps(RunFolder(tmp_path).checkpoints_dir) == [1]
