"""Quantized layers: what they store, what they compute, and the gradients that go through them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.errors import ConfigError
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, count_parameters, trainable
from loralab.model.quant_report import dequantized
from loralab.model.quantize import (
    check_skip_modules,
    keep_cpu_gradients,
    linear_layers,
    quantization_config,
)

CPU = torch.device("cpu")
QUANTIZED = ("nf4", "fp4", "int8")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
Load = Callable[..., PreTrainedModel]


@pytest.fixture
def load(tiny_model_dir: Path) -> Load:
    def load_with(
        name: str, dtype: torch.dtype = torch.float32, folder: Path = tiny_model_dir, **options: object
    ) -> PreTrainedModel:
        quant = QuantConfig(name=name, **options)
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            quantization_config=quantization_config(quant, dtype, skeleton_of(folder)),
            device_map={"": CPU},
        )
        keep_cpu_gradients(model)
        return model

    return load_with


def skeleton_of(folder: Path) -> PreTrainedModel:
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig.from_pretrained(str(folder)))


def quantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    kinds = (Linear4bit, Linear8bitLt)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def first_layer(model: nn.Module) -> nn.Module:
    return next(iter(quantized_layers(model).values()))


def run(layer: nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of a layer for fixed inputs, and the gradient of its squared sum with respect to them."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2, 4, layer.in_features, generator=generator).to(dtype).requires_grad_()
    output = layer(inputs)
    output.float().square().sum().backward()
    assert inputs.grad is not None
    return output.detach(), inputs.grad


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_eval_forward_leaves_gradients_and_weights_alone(
    load: Load, name: str, dtype: torch.dtype
) -> None:
    layer = first_layer(load(name, dtype))
    (_, before), packed = run(layer.train(), dtype), layer.weight.data.clone()
    layer.eval()
    with torch.inference_mode():
        layer(torch.ones(4, layer.in_features, dtype=dtype))
    _, after = run(layer.train(), dtype)
    assert torch.equal(layer.weight.data, packed)
    assert before.abs().sum() > 0
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_quantized_layer_is_the_plain_layer_of_its_dequantized_weights(
    load: Load, name: str, training: bool, dtype: torch.dtype
) -> None:
    layer = first_layer(load(name, dtype)).train(training)
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, dtype=dtype)
    plain.weight.data = dequantized(layer).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for found, expected in zip(run(layer, dtype), run(plain, dtype), strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_every_four_bit_layer_is_kept_from_repacking(load: Load) -> None:
    layers = quantized_layers(load("nf4")).values()
    assert len(layers) == 2 * 7
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_a_block_is_rounded_to_the_levels_of_the_paper() -> None:
    # Absmax is 2. Levels of arXiv:2305.14314, appendix E, around each number / 2:
    #  0.5  -> 0.4407 or 0.5626 (closer by 0.0593 to 0.0626): 0.4407
    # -0.6  -> -0.6962 or -0.5251 (0.0749 is closer): -0.5251
    #  0.03 -> 0 or 0.0796: 0;  -1 -> -1;  0.9 -> 1 (0.1 is closer than 0.1770)
    weight = torch.zeros(1, 64)
    weight[0, :5] = torch.tensor([1.0, -1.2, 0.06, -2.0, 1.8])
    layer = Linear4bit(64, 1, bias=False, compress_statistics=False, quant_type="nf4")
    layer.weight.data = weight
    layer.weight = layer.weight.to(CPU)
    unpacked = dequantize_4bit(layer.weight.data, layer.weight.quant_state)[0]
    expected = torch.zeros(64)
    expected[:5] = 2 * torch.tensor([0.44070982933044434, -0.5250730514526367, 0.0, -1.0, 1.0])
    torch.testing.assert_close(unpacked, expected)


@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_four_bits_store_half_a_byte_per_weight(load: Load, name: str) -> None:
    layer = first_layer(load(name))
    assert layer.weight.numel() * layer.weight.itemsize == layer.in_features * layer.out_features // 2
    assert layer.weight.quant_state.quant_type == name
    assert layer.weight.quant_state.nested
    assert layer.compute_dtype == torch.float32
    assert not first_layer(load(name, double_quant=False)).weight.quant_state.nested


@pytest.mark.parametrize("compute", DTYPES)
def test_the_compute_dtype_is_that_of_the_option(load: Load, compute: str) -> None:
    layer = first_layer(load("nf4", torch.bfloat16, compute_dtype=compute))
    output, gradient = run(layer, torch.bfloat16)
    assert layer.compute_dtype == DTYPES[compute]
    # The stream of activations keeps its own dtype.
    assert output.dtype == gradient.dtype == torch.bfloat16
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, dtype=torch.bfloat16)
    plain.weight.data = dequantized(layer).to(torch.bfloat16)
    torch.testing.assert_close(gradient, run(plain, torch.bfloat16)[1], rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("storage", ["uint8", *DTYPES])
def test_any_storage_trains_saves_and_loads(load: Load, tmp_path: Path, storage: str) -> None:
    model = load("nf4", storage_dtype=storage)
    layer = first_layer(model)
    assert layer.weight.dtype == DTYPES.get(storage, torch.uint8)
    assert layer.weight.numel() * layer.weight.itemsize == layer.in_features * layer.out_features // 2
    expected = run(layer, torch.float32)
    for found, same in zip(run(first_layer(load("nf4")), torch.float32), expected, strict=True):
        assert torch.equal(found, same)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, device_map={"": CPU})
    keep_cpu_gradients(again)
    for found, same in zip(run(first_layer(again), torch.float32), expected, strict=True):
        assert torch.equal(found, same)


def test_int8_saves_and_loads(load: Load, tmp_path: Path) -> None:
    model = load("int8")
    expected = run(first_layer(model), torch.float32)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, device_map={"": CPU})
    keep_cpu_gradients(again)
    for found, same in zip(run(first_layer(again), torch.float32), expected, strict=True):
        assert torch.equal(found, same)


def test_int8_takes_the_threshold(load: Load) -> None:
    assert first_layer(load("int8", int8_threshold=2.5)).state.threshold == 2.5
    assert first_layer(load("int8")).state.threshold == 6.0


@pytest.mark.parametrize("name", QUANTIZED)
def test_skipped_modules_and_the_head_stay_plain(load: Load, name: str) -> None:
    model = load(name, skip_modules=["down_proj", "layers.1.self_attn"])
    left = {name for name, _ in linear_layers(model)} - set(quantized_layers(model))
    assert left == {
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.down_proj",
        *(f"model.layers.1.self_attn.{kind}_proj" for kind in "qkvo"),
    }
    assert type(model.get_output_embeddings()) is nn.Linear


def test_a_name_stands_for_whole_parts_of_names(tiny_model_dir: Path) -> None:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=11, num_attention_heads=1
        )
    )
    found = check_skip_modules(model, QuantConfig(skip_modules=["layers.1"]))
    assert len(found) == 7
    assert all(name.startswith("model.layers.1.") for name in found)
    with pytest.raises(ConfigError, match=r"'proj' matches no linear layer"):
        check_skip_modules(model, QuantConfig(skip_modules=["proj"]))


def test_an_unknown_module_is_refused_with_the_closest(tiny_model_dir: Path) -> None:
    with pytest.raises(ConfigError) as error:
        check_skip_modules(skeleton_of(tiny_model_dir), QuantConfig(skip_modules=["dwn_proj"]))
    assert str(error.value).startswith(
        "quant.skip_modules: 'dwn_proj' matches no linear layer of this model."
    )
    assert "Closest: down_proj" in str(error.value)


def test_no_quantization_keeps_plain_layers(load: Load) -> None:
    model = load("none", torch.bfloat16)
    assert quantized_layers(model) == {}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_loaded_base_is_mended_and_counted_unpacked(tiny_model_dir: Path, name: str) -> None:
    config = ModelConfig(path=str(tiny_model_dir))
    full = load_base(config, QuantConfig(name="none"), CPU, torch.float32)
    base = load_base(config, QuantConfig(name=name), CPU, torch.float32)
    assert len(quantized_layers(base)) == 2 * 7
    quantized = attach_adapter(base, LoraConfig(r=2, targets=["q_proj"]), 0)
    num_trainable, num_total = count_parameters(quantized)
    # Two layers, q_proj 64 to 64: A is 2 x 64 and B is 64 x 2.
    assert num_trainable == 2 * (2 * 64 + 64 * 2) == sum(p.numel() for p in trainable(quantized).values())
    assert num_total == num_trainable + sum(p.numel() for p in full.parameters())
