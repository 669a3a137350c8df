import copy

import torch
from torch import nn

from loralab.config.schema import OptimConfig
from loralab.optim.averaging import weight_average
from loralab.optim.build import build_optimizer
from loralab.optim.master import MasterWeights

CONFIG = OptimConfig(name="schedule_free_adamw", betas=[0.9, 0.999])


def following() -> tuple[MasterWeights, torch.optim.Optimizer]:
    torch.manual_seed(0)
    masters = MasterWeights({"w": nn.Parameter(torch.randn(3, 4))}, torch.float32)
    optimizer = build_optimizer(masters.masters, CONFIG, lr=0.1)
    masters.follow(optimizer)
    return masters, optimizer


def step(masters: MasterWeights, optimizer: torch.optim.Optimizer) -> None:
    (masters.model_parameters["w"] ** 4).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    masters.publish()


def test_other_optimizers_average_nothing() -> None:
    for name in ("adamw", "lion", "muon"):
        weights = {"q.lora_A.weight": nn.Parameter(torch.zeros(2, 2))}
        assert weight_average(build_optimizer(weights, OptimConfig(name=name), lr=0.1)) is None


def test_the_average_is_that_of_the_points_that_gradients_moved() -> None:
    # At a constant rate x is the plain mean of all z, and y lies between them (arXiv:2405.15682).
    masters, optimizer = following()
    moved = []
    for _ in range(5):
        step(masters, optimizer)
        moved.append(optimizer.state[masters.masters["w"]]["z"].clone())
    average = torch.stack(moved).mean(dim=0)
    torch.testing.assert_close(masters.state_dict()["w"], average, rtol=1e-5, atol=1e-6)
    between = 0.1 * moved[-1] + 0.9 * average
    torch.testing.assert_close(masters.masters["w"].detach(), between, rtol=1e-5, atol=1e-6)


def test_before_the_first_step_the_average_is_the_start() -> None:
    masters, _ = following()
    assert torch.equal(masters.state_dict()["w"], masters.masters["w"])


def test_the_model_gets_the_average_and_then_the_point_back_to_the_last_bit() -> None:
    masters, optimizer = following()
    for _ in range(3):
        step(masters, optimizer)
    point = masters.model_parameters["w"].detach().clone()
    masters.publish_average()
    assert torch.equal(masters.model_parameters["w"], masters.state_dict()["w"])
    assert not torch.equal(masters.model_parameters["w"], point)
    masters.publish()
    assert torch.equal(masters.model_parameters["w"], point)


def test_loading_puts_the_point_where_it_was_and_into_the_model() -> None:
    masters, optimizer = following()
    for _ in range(3):
        step(masters, optimizer)
    point, saved, state = (
        masters.masters["w"].detach().clone(),
        masters.state_dict(),
        copy.deepcopy(optimizer.state_dict()),
    )
    step(masters, optimizer)
    masters.load_state_dict(saved)
    # Without the optimizer's state, as at the end of a run, the values are what was loaded.
    assert torch.equal(masters.state_dict()["w"], saved["w"])
    assert torch.equal(masters.model_parameters["w"], saved["w"])
    optimizer.load_state_dict(state)
    assert torch.equal(masters.masters["w"], point)
    assert torch.equal(masters.model_parameters["w"], point)
    assert torch.equal(masters.state_dict()["w"], saved["w"])
