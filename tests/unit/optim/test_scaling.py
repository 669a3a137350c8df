import pytest
import torch

from loralab.errors import ModelError
from loralab.metrics import TRAIN_LOSS_SCALE, TRAIN_SKIPPED_STEPS
from loralab.optim import scaling
from loralab.optim.scaling import LossScaler


def parameter(gradient: list[float]) -> torch.nn.Parameter:
    made = torch.nn.Parameter(torch.zeros(len(gradient)))
    made.grad = torch.tensor(gradient)
    return made


def test_only_fp16_is_scaled() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        scaler, loss = LossScaler(dtype), torch.tensor(3.0)
        assert scaler.scale(loss) is loss
        assert scaler.unscale([parameter([float("inf")])])
        assert scaler.figures() == {}


def test_gradients_come_back_as_they_were() -> None:
    scaler, plain = LossScaler(torch.float16), parameter([3e-7, -2.5])
    scaled = parameter([float(scaler.scale(value)) for value in plain.grad])
    assert scaled.grad[1] == -2.5 * 65536
    assert scaler.unscale([scaled])
    assert torch.equal(scaled.grad, plain.grad)
    assert scaler.figures() == {TRAIN_LOSS_SCALE: 65536.0, TRAIN_SKIPPED_STEPS: 0}


def test_small_gradients_survive_fp16_only_with_scaling() -> None:
    # 1e-8 lies below the smallest number of fp16, 6e-8.
    scaler = LossScaler(torch.float16)
    for factor, expected in ((lambda loss: loss, 0.0), (scaler.scale, 1e-8)):
        weight = torch.zeros(1, dtype=torch.float16, requires_grad=True)
        factor((weight.float() * 1e-8).sum()).backward()
        master = torch.nn.Parameter(torch.zeros(1))
        master.grad = weight.grad.float()
        if expected:
            scaler.unscale([master])
        assert master.grad.item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_an_overflow_halves_the_scale_and_leaves_no_gradient(bad: float) -> None:
    scaler, good, overflown = LossScaler(torch.float16), parameter([1.0]), parameter([0.0, bad])
    assert not scaler.unscale([good, overflown])
    assert good.grad.tolist() == [0.0] and overflown.grad.tolist() == [0.0, 0.0]
    assert scaler.figures() == {TRAIN_LOSS_SCALE: 32768.0, TRAIN_SKIPPED_STEPS: 1}


def test_the_scale_doubles_after_enough_good_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in torch.amp.GradScaler: growth counts from the last overflow on.
    monkeypatch.setattr(scaling, "PATIENCE", 3)
    scaler, scales = LossScaler(torch.float16), []
    for value in (1.0, 1.0, float("inf"), 1.0, 1.0, 1.0, 1.0):
        scaler.unscale([parameter([value])])
        scales.append(scaler.factor / 65536)
    assert scales == [1, 1, 0.5, 0.5, 0.5, 1, 1]


def test_the_same_scales_as_torchs_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "PATIENCE", 2)
    ours, theirs = LossScaler(torch.float16), torch.amp.GradScaler("cpu", growth_interval=2)
    for value in (1.0, float("inf"), 1.0, 1.0, 1.0, float("nan"), float("inf"), 1.0, 1.0):
        master = parameter([0.0])
        optimizer = torch.optim.SGD([master], lr=1.0)
        theirs.scale(torch.zeros(()))
        master.grad = torch.tensor([value])
        theirs.step(optimizer)
        theirs.update()
        taken = ours.unscale([parameter([value])])
        assert taken == bool(torch.isfinite(torch.tensor(value))) == bool(master.item() != 0)
        assert ours.factor == theirs.get_scale()


def test_a_resumed_scaler_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "PATIENCE", 2)
    before, after = LossScaler(torch.float16), LossScaler(torch.float16)
    for value in (float("inf"), 1.0):
        before.unscale([parameter([value])])
    after.load_state_dict(before.state_dict())
    for scaler in (before, after):
        scaler.unscale([parameter([1.0])])
        assert (scaler.factor, scaler.skipped_steps) == (65536.0, 1)
    after.load_state_dict({})
    assert after.skipped_steps == 1


def test_gradients_that_overflow_at_every_scale_end_the_run() -> None:
    # From 2^16 down to 2^-14 there are thirty halvings; the one after them is too many.
    scaler = LossScaler(torch.float16)
    for _ in range(30):
        assert not scaler.unscale([parameter([float("inf")])])
    assert scaler.factor == 2.0**-14
    with pytest.raises(ModelError, match="overflow float16 at every scale"):
        scaler.unscale([parameter([float("inf")])])
