"""Norms and gates that keep only their inputs, against those of transformers."""

import pytest
import torch
from tests.unit.model.tiny_models import LLAMA_LIKE, build
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from loralab.model.elementwise import recompute_elementwise


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", 2 * (2 + 1) + 1),  # Two norms and a gate in a layer, and the last norm.
        ("qwen3", 2 * (2 + 2 + 1) + 1),  # And norms of queries and keys.
        ("phi3", 2 * 2 + 1),  # Its gate and upward projection are one layer.
        ("gemma2", 0),  # Weights around zero, and GELU.
        ("gpt2", 0),
    ],
)
def test_what_is_written_as_llama_is_changed(family, expected):
    assert recompute_elementwise(build(family)) == expected


def test_gates_of_another_activation_stay():
    model = LlamaForCausalLM(LlamaConfig(**LLAMA_LIKE, hidden_act="gelu"))
    assert recompute_elementwise(model) == 2 * 2 + 1


def norm() -> nn.Module:
    module = LlamaRMSNorm(32, eps=1e-3).requires_grad_(False)
    module.weight.normal_()
    return module


def feed_forward() -> nn.Module:
    return LlamaMLP(LlamaConfig(**LLAMA_LIKE)).requires_grad_(False)


def run(module: nn.Module, x: Tensor) -> tuple[list[Tensor], int]:
    """Returns output and gradient, and the bytes that are kept beside the input."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    given = x.clone().requires_grad_()
    own = {each.untyped_storage().data_ptr() for each in (given, *module.parameters())}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(given)
    factors = torch.arange(1.0, output.numel() + 1).view_as(output).cos().to(output.dtype)
    output.backward(factors)
    assert given.grad is not None
    return [output, given.grad], sum(size for place, size in kept.items() if place not in own)


@pytest.mark.parametrize(
    ("build", "kept"),
    [
        # Per token in bfloat16: the scale, where a copy in float32 would be 32 * 4 more.
        (norm, 4),
        # Gate and upward projection of 48 numbers, where the activation would be as much again.
        (feed_forward, 2 * 48 * 2),
    ],
)
def test_outputs_and_gradients_are_the_same_and_less_is_kept(build, kept):
    torch.manual_seed(0)
    plain = build()
    lean = build()
    lean.load_state_dict(plain.state_dict())
    assert recompute_elementwise(lean) == 1
    x = 3 * torch.randn(2, 5, 32)
    # Sums of 32 numbers in another order.
    for ours, theirs in zip(run(lean, x)[0], run(plain, x)[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    half = [module.to(torch.bfloat16) for module in (lean, plain)]
    (ours, ours_kept), (theirs, theirs_kept) = (run(module, x.bfloat16()) for module in half)
    for one, other in zip(ours, theirs, strict=True):
        # Gradients of a norm are rounded once here and several times there.
        assert float((one - other).detach().float().norm() / other.detach().float().norm()) < 2**-8
    assert ours_kept == 10 * kept < theirs_kept


def test_the_input_of_a_norm_stays_as_it_is():
    """In float32 no copy is made on the way of its own accord."""
    module = norm()
    recompute_elementwise(module)
    x = torch.randn(3, 32)
    before = x.clone()
    module(x)
    assert torch.equal(x, before)


def test_a_norm_that_learns_gets_its_gradient():
    plain, lean = norm().requires_grad_(), norm().requires_grad_()
    lean.load_state_dict(plain.state_dict())
    recompute_elementwise(lean)
    x = torch.randn(3, 32)
    for module in (plain, lean):
        module(x).square().sum().backward()
    torch.testing.assert_close(lean.weight.grad, plain.weight.grad)
