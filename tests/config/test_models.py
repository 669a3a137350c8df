"""The architecture numbers of the presets give the parameter counts that the models are published with."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from loralab.config.load import compose_train
from loralab.model.targets import resolve_targets

PRESETS = Path(__file__).parents[2] / "conf" / "model"
PUBLISHED = {
    "smollm2_1b7": 1_711_376_384,
    "tinyllama_1b": 1_100_048_384,
    "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824,
    "llama3_8b": 8_030_261_248,
    "llama3_1_8b": 8_030_261_248,
    "llama3_1_70b": 70_553_706_496,
    "llama3_3_70b": 70_553_706_496,
    "mistral_7b": 7_248_023_552,
    "mistral_nemo_12b": 12_247_782_400,
    "qwen2_5_0b5": 494_032_768,
    "qwen2_5_1b5": 1_543_714_304,
    "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_14b": 14_770_033_664,
    "qwen2_5_32b": 32_763_876_352,
    "qwen2_5_72b": 72_706_203_648,
    "qwen3_0b6": 596_049_920,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "qwen3_14b": 14_768_307_200,
    "qwen3_32b": 32_762_123_264,
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320,
    "phi3_mini": 3_821_079_552,
    "phi4_14b": 14_659_507_200,
}
"""Parameters as each model's safetensors index on the Hub counts them."""


def read_presets() -> dict[str, dict[str, Any]]:
    presets = [yaml.safe_load(path.read_text()) for path in sorted(PRESETS.glob("*.yaml"))]
    return {preset["name"]: preset for preset in presets if preset["path"] is not None}


def test_every_preset_of_the_hub_has_its_numbers_here() -> None:
    assert read_presets().keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_architecture_has_the_published_parameters(name: str) -> None:
    architecture = read_presets()[name]["architecture"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == PUBLISHED[name]
    # The default adapter on it: r x (inputs + outputs) of each linear layer of the decoder layers.
    lora, modules = compose_train([f"model={name}"]).lora, dict(model.named_modules())
    sides = [modules[layer].weight.shape for layer in resolve_targets(model, lora)]
    trained = lora.r * sum(map(sum, sides))
    assert 0 < trained / (total + trained) < 0.02
