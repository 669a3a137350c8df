"""First values that a checkpoint brings back make the same function, whatever was worked out again."""

from pathlib import Path

import pytest
import torch
from tests.unit.model.tiny_models import build

from loralab.config.model import LoraConfig
from loralab.config.schema import OptimConfig, TrainConfig
from loralab.data.plan import StepPlan
from loralab.errors import ModelError
from loralab.model.adapters.offsets import offsets
from loralab.model.lora import attach_adapter, trainable
from loralab.modules.sft import SFTModule

IDS = torch.tensor([[1, 3, 9, 5]])


def adapt(init: str) -> SFTModule:
    model = attach_adapter(build("llama"), LoraConfig(r=4, init=init), 0)
    config = TrainConfig(optim=OptimConfig(lr=0.01))
    return SFTModule(model, StepPlan(8, 8, 2, None, 1, 0), config, torch.float32).eval()


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_resumed_run_counts_from_the_values_of_its_checkpoint(init: str, tmp_path: Path) -> None:
    first, again = adapt(init), adapt(init)
    for master in first.masters.parameters():
        master.data += 0.05 * torch.randn(master.shape, generator=torch.Generator().manual_seed(0))
    first.masters.publish()
    torch.save({"method": first.method_state()}, tmp_path / "state.pt")
    # Another build of the linear algebra may turn pairs of singular vectors around, or round them.
    for down, up in offsets(again.model).values():
        down.mul_(-1.1)
        up.add_(0.1)
    again.masters.load_state_dict(first.masters.state_dict())
    expected = first.model(IDS).logits
    assert (again.model(IDS).logits - expected).abs().max() > 1e-3
    again.load_method_state(torch.load(tmp_path / "state.pt", weights_only=True)["method"])
    torch.testing.assert_close(again.model(IDS).logits, expected, rtol=0, atol=0)


def test_only_starts_that_are_subtracted_are_kept() -> None:
    assert adapt("default").method_state()["offsets"] == {}
    kept = adapt("pissa").method_state()["offsets"]
    assert len(kept) == len(trainable(adapt("pissa").model)) / 2


def test_the_checkpoint_of_another_start_is_refused() -> None:
    with pytest.raises(ModelError, match=r"first updates of 0 layers, and lora.init has given them to 14"):
        adapt("pissa").load_method_state(adapt("default").method_state())
