"""The loss in one kernel: its wiring with a plain stand-in, and where the package is, the kernel itself."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from loralab.errors import ConfigError
from loralab.losses import liger
from loralab.losses.liger import check_liger, is_installed, runs_liger
from loralab.losses.sft import token_nll

INTERPRETED = """
import torch
from loralab.losses.liger import nll_in_place
generator = torch.Generator().manual_seed(0)
logits = 3 * torch.randn(5, 300, generator=generator)
targets = torch.tensor([1, 0, 299, 7, 7])
probabilities = logits.double().softmax(-1)
wanted = -probabilities.gather(1, targets[:, None]).log().squeeze(1)
error = probabilities - torch.nn.functional.one_hot(targets, 300)
losses, gradient = nll_in_place(logits, targets)
assert gradient.data_ptr() == logits.data_ptr() and losses.dtype == torch.float32
torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-5)
torch.testing.assert_close(gradient.double(), error, rtol=1e-5, atol=1e-6)
"""


def overwrite(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What the kernel does, in plain steps."""
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    logits.copy_(logits.softmax(-1))
    logits[torch.arange(len(targets)), targets] -= 1
    return losses, logits


@pytest.mark.parametrize("chunk", [100, 3])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_logits_that_are_overwritten_give_the_same_losses_and_gradients(chunk, cap) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(11, 8, generator=generator)
    start, factors = torch.randn(10, 8, generator=generator), torch.rand(10, generator=generator)

    def project(part: Tensor) -> Tensor:
        logits = part @ weight.T
        return logits if cap is None else cap * torch.tanh(logits / cap)

    results = []
    for way in ({}, {"is_frozen": True, "nll_and_gradient": overwrite}):
        hidden = start.clone().requires_grad_()
        losses = token_nll(hidden, torch.arange(10), project, chunk, **way)
        (losses * factors).sum().backward()
        results.append((losses.detach(), hidden.grad))
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "installed", "on_gpu"),
    [("auto", True, True), ("auto", False, False), (True, False, True), (False, True, False)],
)
def test_auto_takes_the_kernel_where_it_is_and_a_cpu_never_does(setting, installed, on_gpu, monkeypatch):
    monkeypatch.setattr(liger, "is_installed", lambda: installed)
    assert runs_liger(setting, "cuda") is on_gpu
    assert not runs_liger(setting, "cpu")


def test_a_missing_package_is_named_with_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(liger, "find_spec", lambda name: None if name == "triton" else object())
    with pytest.raises(ConfigError, match=r"liger=true needs .* pip install 'loralab\[liger\]'"):
        check_liger(True)
    check_liger("auto")
    check_liger(False)


@pytest.mark.skipif(not is_installed(), reason="liger-kernel and triton are not installed")
def test_the_kernel_gives_losses_and_gradients_in_tritons_interpreter() -> None:
    # It is read when Triton is imported, so it needs a process of its own.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
