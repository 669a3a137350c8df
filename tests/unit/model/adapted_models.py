"""Tiny adapted models, and what comes out of them."""

from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt, Params4bit
from bitsandbytes.nn.modules import Int8Params
from peft import PeftModel
from tests.unit.model import tiny_models
from torch import Tensor, nn

from loralab.config.model import LoraConfig
from loralab.model.lora import attach_adapter, trainable
from loralab.model.quantize import keep_cpu_gradients

IDS = torch.arange(2, 22).reshape(2, 10)
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def randomised(model: PeftModel) -> PeftModel:
    """Gives B values, so that A has a gradient."""
    generator = torch.Generator().manual_seed(1)
    for parameter in trainable(model).values():
        parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.1
    return model


def adapted(lora: LoraConfig, family: str = "llama") -> PeftModel:
    return randomised(attach_adapter(tiny_models.build(family), lora, seed=0))


def outputs_and_gradients(model: PeftModel, ids: Tensor = IDS) -> dict[str, Tensor]:
    model.zero_grad()
    words = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=words).logits
    (logits.float() ** 2).mean().backward()
    assert words.grad is not None
    gradients = {
        name: value.grad.clone() for name, value in trainable(model).items() if value.grad is not None
    }
    return {"logits": logits.detach(), "words": words.grad, **gradients}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-5, atol=1e-5 * float(value.abs().max()))


def counted(function: type[torch.autograd.Function], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often a function runs."""
    calls: list[int] = []
    original = function.apply

    def apply(*arguments: Any) -> Any:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(function, "apply", apply)
    return calls


def quantized(model: PeftModel, kind: str) -> PeftModel:
    """Stores the frozen linear layers in 4 or 8 bits."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name not in LAYERS or type(child) is not nn.Linear:
                continue
            if kind == "int8":
                layer: Any = Linear8bitLt(
                    child.in_features, child.out_features, bias=False, has_fp16_weights=False
                )
                layer.weight = Int8Params(child.weight.data.clone(), requires_grad=False).to("cpu")
            else:
                layer = Linear4bit(child.in_features, child.out_features, bias=False, quant_type=kind)
                layer.weight = Params4bit(child.weight.data.clone(), quant_type=kind).to("cpu")
            setattr(module, name, layer)
    keep_cpu_gradients(model)
    return model


def quantized_llama(kind: str) -> PeftModel:
    """Returns a model in training mode whose frozen layers are in 4 or 8 bits."""
    base = quantized(tiny_models.build("llama"), kind)
    return randomised(attach_adapter(base, LoraConfig(r=4), seed=0)).train()
