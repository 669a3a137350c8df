"""LoRA layers that run in fewer passes, beside PEFT's own."""

import copy
from typing import Any

import peft
import pytest
import torch
from tests.unit.model import tiny_models
from tests.unit.model.adapted_models import (
    IDS,
    adapted,
    assert_same,
    counted,
    outputs_and_gradients,
    quantized_llama,
)
from torch import Tensor, nn

from loralab.config.model import LoraConfig
from loralab.model.fused_lora import FusedLora, fuse_lora
from loralab.model.lora import trainable


def test_a_layer_worked_out_by_hand() -> None:
    base = nn.Linear(2, 2, bias=True)
    base.weight.data, base.bias.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([10.0, 20.0])
    base.requires_grad_(False)
    x = torch.tensor([[1.0, 1.0]], requires_grad=True)
    down, up = torch.tensor([[1.0, -2.0]], requires_grad=True), torch.tensor([[2.0], [1.0]]).requires_grad_()
    # W x = (3, 7); A x = -1; 0.5 B A x = (-1, -0.5)
    product = FusedLora.apply(x, down, up, 0.5, base)
    assert product.tolist() == [[12.0, 26.5]]
    # g = (1, 10): g W = (31, 42); B^T g = 12, so 0.5 x 12 A = (6, -12)
    product.backward(torch.tensor([[1.0, 10.0]]))
    assert x.grad is not None and down.grad is not None and up.grad is not None
    assert x.grad.tolist() == [[37.0, 30.0]]
    assert down.grad.tolist() == [[6.0, 6.0]]
    assert up.grad.tolist() == [[-0.5], [-5.0]]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "phi", "gpt_neox", "starcoder2"])
def test_it_computes_what_peft_does(family: str) -> None:
    model = adapted(LoraConfig(r=4), family)
    expected = outputs_and_gradients(model)
    assert fuse_lora(model) == sum(isinstance(layer, peft.tuners.lora.Linear) for layer in model.modules())
    assert_same(outputs_and_gradients(model), expected)


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_quantized_layers_too(kind: str) -> None:
    model = quantized_llama(kind)
    expected = outputs_and_gradients(model)
    assert fuse_lora(model) == 14
    assert_same(outputs_and_gradients(model), expected)


@pytest.mark.parametrize("options", [{"dropout": 0.1}, {"dora": True}], ids=["dropout", "dora"])
def test_what_does_more_runs_as_it_did(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(LoraConfig(r=4, **options)).train()
    torch.manual_seed(5)
    expected = outputs_and_gradients(model)
    fuse_lora(model)
    calls = counted(FusedLora, monkeypatch)
    torch.manual_seed(5)
    assert_same(outputs_and_gradients(model), expected)
    assert not calls


def test_layers_whose_bias_trains_run_as_they_did() -> None:
    model = adapted(LoraConfig(r=4, bias="lora_only"), "qwen2")
    expected = outputs_and_gradients(model)
    assert fuse_lora(model) == 8  # all of two layers but q, k and v, which have biases
    assert_same(outputs_and_gradients(model), expected)


def test_dropout_is_no_obstacle_outside_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(LoraConfig(r=4, dropout=0.1)).eval()
    fuse_lora(model)
    calls = counted(FusedLora, monkeypatch)
    model(IDS)
    assert len(calls) == 14


def test_a_switched_off_adapter_leaves_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(LoraConfig(r=4))
    fuse_lora(model)
    calls = counted(FusedLora, monkeypatch)
    with model.disable_adapter(), torch.no_grad():
        found = model(IDS).logits
    with torch.no_grad():
        torch.testing.assert_close(found, tiny_models.build("llama")(IDS).logits)
    assert not calls


def test_autocast_runs_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(LoraConfig(r=4))
    fuse_lora(model)
    calls = counted(FusedLora, monkeypatch)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert model(IDS).logits.isfinite().all()
    assert not calls


def test_in_sixteen_bits_it_is_as_near_to_float32_as_peft() -> None:
    exact = outputs_and_gradients(adapted(LoraConfig(r=4)))
    half = adapted(LoraConfig(r=4)).to(torch.bfloat16)
    plain = outputs_and_gradients(half)
    fuse_lora(half)
    fused = outputs_and_gradients(half)

    def distance(found: dict[str, Tensor]) -> float:
        return sum(
            float((found[name].float() - value).norm() / value.norm()) for name, value in exact.items()
        )

    assert distance(fused) < 1.1 * distance(plain)


def test_a_copy_of_the_model_runs_on_its_own_weights() -> None:
    model = adapted(LoraConfig(r=4))
    fuse_lora(model)
    twin = copy.deepcopy(model)
    for parameter in trainable(twin).values():
        parameter.data.zero_()
    with torch.no_grad():
        torch.testing.assert_close(twin(IDS).logits, tiny_models.build("llama")(IDS).logits)
