from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from loralab.config.model import ModelConfig, QuantConfig
from loralab.errors import ModelError
from loralab.model import prequantized as module
from loralab.model.load import load_base, load_config
from loralab.model.prequantized import Prequantized, check_prequantized, left_out, prequantized

CPU = torch.device("cpu")
SAVED: dict[str, dict[str, Any]] = {
    "nf4": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.float16,
    },
    "int8": {"load_in_8bit": True},
}


@pytest.fixture(params=["nf4", "int8"])
def saved(request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path: Path) -> tuple[str, ModelConfig]:
    """A model that bitsandbytes quantized and transformers saved, without code of ours."""
    quantization = BitsAndBytesConfig(**SAVED[request.param])
    model = AutoModelForCausalLM.from_pretrained(
        tiny_model_dir, quantization_config=quantization, device_map={"": "cpu"}
    )
    model.save_pretrained(tmp_path)
    return request.param, ModelConfig(name="small", path=str(tmp_path))


def config_with(**stored: Any) -> LlamaConfig:
    return LlamaConfig(quantization_config=stored)


@pytest.mark.parametrize("quant", ["nf4", "int8", "none"])
def test_a_quantized_base_is_loaded_as_it_is(
    saved: tuple[str, ModelConfig], quant: str, tiny_model_dir: Path
) -> None:
    scheme, config = saved
    model = load_base(config, QuantConfig(name=quant), CPU, torch.float32)
    reference = load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name=scheme), CPU, torch.float32)
    layer = model.get_submodule("model.layers.0.self_attn.q_proj")
    expected = reference.get_submodule("model.layers.0.self_attn.q_proj")
    assert isinstance(layer, {"nf4": Linear4bit, "int8": Linear8bitLt}[scheme])
    # A second quantization would change the stored numbers.
    assert torch.equal(layer.weight.data, expected.weight.data)
    assert left_out(config, QuantConfig(name="fp4"), prequantized(load_config(config)) or pytest.fail()) == (
        f"small is already quantized (bitsandbytes {scheme}): quant=fp4 is left out"
    )


def test_it_computes_in_the_dtype_of_the_run(saved: tuple[str, ModelConfig]) -> None:
    scheme, config = saved
    model = load_base(config, QuantConfig(), CPU, torch.bfloat16)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    if scheme == "nf4":
        assert model.get_submodule("model.layers.0.self_attn.q_proj").compute_dtype == torch.bfloat16


def test_gradients_reach_an_adapter_through_it(saved: tuple[str, ModelConfig]) -> None:
    _, config = saved
    model = load_base(config, QuantConfig(), CPU, torch.float32)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, lora)
    adapted.eval()
    ids = torch.arange(12).unsqueeze(0)
    adapted(input_ids=ids, labels=ids).loss.backward()
    gradients = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(gradients) == 2 * 2 * 2
    # The first layer's gradient has come through every frozen layer above it.
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ({"quant_method": "gptq", "bits": 4}, Prequantized("gptq", "GPTQ 4-bit", "gptq")),
        ({"quant_method": "awq", "bits": 4}, Prequantized("awq", "AWQ 4-bit", "awq")),
        ({"quant_method": "fp8"}, Prequantized("fp8", "fp8", "fp8")),
        ({"load_in_8bit": True}, Prequantized("bitsandbytes", "bitsandbytes int8", "int8")),
    ],
)
def test_methods_are_recognised_from_the_config(stored: dict[str, Any], found: Prequantized) -> None:
    assert prequantized(config_with(**stored)) == found


def test_ordinary_weights_are_none() -> None:
    assert prequantized(LlamaConfig()) is None


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_missing_library_is_named_as_pip_knows_it(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = prequantized(config_with(quant_method=method, bits=4))
    assert found is not None
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"which needs a package .* Run `pip install gptqmodel optimum`"):
        check_prequantized(ModelConfig(name="small"), found)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    assert check_prequantized(ModelConfig(name="small"), found) is None


def test_what_is_left_out_is_said() -> None:
    quant = QuantConfig(name="nf4", skip_modules=["down_proj", "layers.0"])
    assert left_out(ModelConfig(name="small"), quant, Prequantized("gptq", "GPTQ 4-bit", "gptq")) == (
        "small is already quantized (GPTQ 4-bit): quant=nf4 is left out, and "
        "quant.skip_modules=[down_proj,layers.0] with it; the bytes of its layers are not reported"
    )


def test_a_method_without_adapter_layers_is_refused() -> None:
    found = Prequantized("mxfp4", "mxfp4", "mxfp4")
    with pytest.raises(
        ModelError, match=r"small is already quantized \(mxfp4\), and PEFT has no adapter layers"
    ):
        check_prequantized(ModelConfig(name="small"), found)
