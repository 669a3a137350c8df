from pathlib import Path

import bitsandbytes
import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit

from loralab.config.schema import LoraConfig, ModelConfig, QuantConfig
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, count_parameters, trainable

CPU = torch.device("cpu")


def load(tiny_model_dir: Path, quant: str, dtype: torch.dtype = torch.float32):
    return load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name=quant), CPU, dtype)


def input_gradient(layer: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(1)
    inputs = torch.randn(4, layer.in_features, dtype=dtype, requires_grad=True)
    layer(inputs).float().square().sum().backward()
    assert inputs.grad is not None
    return inputs.grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_eval_forward_leaves_the_gradient_through_four_bit_layers_alone(
    tiny_model_dir: Path, dtype: torch.dtype
) -> None:
    layer = next(m for m in load(tiny_model_dir, "nf4", dtype).modules() if isinstance(m, Linear4bit))
    before, packed = input_gradient(layer.train(), dtype), layer.weight.data.clone()
    layer.eval()
    with torch.inference_mode():
        layer(torch.ones(4, layer.in_features, dtype=dtype))
    after = input_gradient(layer.train(), dtype)
    assert torch.equal(layer.weight.data, packed)
    assert before.abs().sum() > 0
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_every_four_bit_layer_is_kept_from_repacking(tiny_model_dir: Path) -> None:
    layers = [m for m in load(tiny_model_dir, "nf4").modules() if isinstance(m, Linear4bit)]
    assert len(layers) == 2 * 7
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_nf4_stores_half_a_byte_per_weight_and_double_quantizes(tiny_model_dir: Path) -> None:
    layer = next(m for m in load(tiny_model_dir, "nf4").modules() if isinstance(m, Linear4bit))
    assert (
        layer.weight.data.numel() * layer.weight.data.itemsize == layer.in_features * layer.out_features // 2
    )
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    assert layer.compute_dtype == torch.float32


def test_nf4_weights_are_within_half_a_level_of_the_originals(tiny_model_dir: Path) -> None:
    full = dict(load(tiny_model_dir, "none").named_parameters())
    name, layer = next(
        (name, m) for name, m in load(tiny_model_dir, "nf4").named_modules() if isinstance(m, Linear4bit)
    )
    unpacked = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    error = (unpacked.float() - full[f"{name}.weight"]).reshape(-1, 64)
    scale = full[f"{name}.weight"].reshape(-1, 64).abs().amax(dim=1, keepdim=True)
    # The widest gap between NF4 levels is -1.0 to -0.6962 (arXiv:2305.14314, appendix E), half of it
    # 0.152; double quantization moves the scale by well under 3%.
    assert (error / scale).abs().max() < 0.152 + 0.03


def test_no_quantization_keeps_plain_layers(tiny_model_dir: Path) -> None:
    model = load(tiny_model_dir, "none", torch.bfloat16)
    assert not any(isinstance(m, Linear4bit) for m in model.modules())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_parameters_are_counted_unpacked(tiny_model_dir: Path) -> None:
    full = load(tiny_model_dir, "none")
    quantized = attach_adapter(load(tiny_model_dir, "nf4"), LoraConfig(r=2, targets=["q_proj"]), 0)
    num_trainable, num_total = count_parameters(quantized)
    # Two layers, q_proj 64 to 64: A is 2 x 64 and B is 64 x 2.
    assert num_trainable == 2 * (2 * 64 + 64 * 2) == sum(p.numel() for p in trainable(quantized).values())
    assert num_total == num_trainable + sum(p.numel() for p in full.parameters())
