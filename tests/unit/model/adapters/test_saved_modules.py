"""Every method on layers finds the modules that train whole by their names, or says why not."""

from pathlib import Path

import pytest
import torch
from tests.unit.model.tiny_models import build
from transformers import PreTrainedModel

from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, check_adapter, trainable

METHODS = ["lora", "adalora", "vera", "ia3"]
CONTEXT = AdapterContext(total_steps=10)


def refuse(model: PreTrainedModel, lora: LoraConfig, message: str) -> None:
    """Both before weights load and when the adapter is put on."""
    with pytest.raises(ConfigError, match=message):
        check_adapter(model, lora)
    with pytest.raises(ConfigError, match=message):
        attach_adapter(model, lora, 0, CONTEXT)


@pytest.mark.parametrize("method", METHODS)
def test_a_name_of_nothing_is_refused(method: str) -> None:
    lora, base = LoraConfig(method=method, r=4, modules_to_save=["lm_haed"]), build("llama")
    names = [name for name, _ in base.named_parameters()]
    refuse(base, lora, r"lora.modules_to_save: 'lm_haed' matches no module.*Closest: lm_head")
    assert [name for name, _ in base.named_parameters()] == names


@pytest.mark.parametrize("method", METHODS)
def test_a_named_module_trains_whole(method: str) -> None:
    lora = LoraConfig(method=method, r=4, modules_to_save=["lm_head"])
    names = [
        name for name in trainable(attach_adapter(build("llama"), lora, 0, CONTEXT)) if "lm_head" in name
    ]
    assert names == ["base_model.model.lm_head.modules_to_save.default.weight"]


@pytest.mark.parametrize("method", ["adalora", "vera", "ia3"])
def test_a_tied_head_is_not_untied(method: str) -> None:
    lora = LoraConfig(method=method, r=4, modules_to_save=["lm_head"])
    refuse(
        build("gemma2"), lora, rf"modules_to_save=\[lm_head\].*tied.*lora.method={method}.*lora.method=lora"
    )
    # What is not tied may train whole.
    norm = LoraConfig(method=method, r=4, modules_to_save=["model.norm"])
    names = trainable(attach_adapter(build("gemma2"), norm, 0, CONTEXT))
    assert "base_model.model.model.norm.modules_to_save.default.weight" in names


@pytest.mark.parametrize("method", METHODS)
def test_quantized_weights_cannot_train(tiny_model_dir: Path, method: str) -> None:
    base = load_base(
        ModelConfig(path=str(tiny_model_dir)), QuantConfig(name="nf4"), torch.device("cpu"), torch.float32
    )
    lora = LoraConfig(method=method, r=4, modules_to_save=["q_proj"])
    names = [name for name, _ in base.named_parameters()]
    refuse(base, lora, r"the weights of .*q_proj are quantized.*quant.skip_modules=\[q_proj\]")
    assert [name for name, _ in base.named_parameters()] == names
