import pytest
import torch

from loralab.config.schema import OptimConfig
from loralab.optim.build import build_optimizer
from loralab.optim.master import MasterWeights


def test_updates_too_small_for_bfloat16_are_kept() -> None:
    # Near 1, bfloat16 moves in steps of 1/128: single updates of 1e-3 would all be rounded away.
    parameter = torch.nn.Parameter(torch.ones(1))
    masters = MasterWeights({"w": parameter}, torch.bfloat16)
    optimizer = torch.optim.SGD(masters.parameters(), lr=1e-3)
    for _ in range(20):
        parameter.float().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        masters.publish()
    assert masters.masters["w"].item() == pytest.approx(1 - 20e-3, abs=1e-6)
    assert parameter.dtype == torch.bfloat16
    assert parameter.item() == torch.tensor(0.98).bfloat16().item()


def test_gradients_of_micro_batches_add_up_in_float32() -> None:
    parameter = torch.nn.Parameter(torch.ones(1))
    masters = MasterWeights({"w": parameter}, torch.bfloat16)
    for scale in (256.0, 1.0):  # 257 has no bfloat16: 9 significant bits
        (parameter * scale).sum().backward()
    assert masters.masters["w"].grad.item() == 257.0
    assert parameter.grad is None


def test_state_comes_back_and_is_published() -> None:
    masters = MasterWeights({"w": torch.nn.Parameter(torch.zeros(2))}, torch.float32)
    masters.load_state_dict({"w": torch.tensor([1.0, 2.0])})
    assert masters.model_parameters["w"].tolist() == [1.0, 2.0]
    with pytest.raises(KeyError, match="other"):
        masters.load_state_dict({"other": torch.zeros(2)})


def test_adamw_first_step_by_hand() -> None:
    # Step 1 of AdamW: w <- w (1 - lr wd) - lr g / (|g| + eps); with w=1, g=0.5, lr=0.1, wd=0.5: 0.95 - 0.1
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = build_optimizer({"w": weight}, OptimConfig(weight_decay=0.5), lr=0.1)
    weight.grad = torch.full((2, 2), 0.5)
    optimizer.step()
    assert weight.flatten().tolist() == pytest.approx([0.85] * 4, abs=1e-6)
