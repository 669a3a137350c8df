import pytest
import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.ia3 import ia3_config, ia3_targets
from loralab.model.lora import attach_adapter
from loralab.model.module_names import shortest_ends

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def build(model_class, config):
    with torch.device("meta"):
        return model_class(config)


@pytest.mark.parametrize(
    ("model_class", "config", "outputs", "inputs"),
    [
        (LlamaForCausalLM, LlamaConfig(**SIZES), {"k_proj", "v_proj"}, {"down_proj"}),
        (PhiForCausalLM, PhiConfig(**SIZES), {"k_proj", "v_proj"}, {"fc2"}),
        (Starcoder2ForCausalLM, Starcoder2Config(**SIZES), {"k_proj", "v_proj"}, {"c_proj"}),
        (
            FalconForCausalLM,
            FalconConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
            {"query_key_value"},
            {"dense_4h_to_h"},
        ),
        # The attention's output is called c_proj as well.
        (
            GPT2LMHeadModel,
            GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4),
            {"attn.c_attn"},
            {"mlp.c_proj"},
        ),
    ],
)
def test_auto_scales_keys_values_and_the_inputs_of_down_projections(
    model_class, config, outputs: set[str], inputs: set[str]
) -> None:
    found = ia3_config(build(model_class, config), LoraConfig(method="ia3"), AdapterContext())
    assert found.target_modules == outputs | inputs
    assert found.feedforward_modules == inputs


def test_given_targets_scale_outputs_unless_they_are_down_projections() -> None:
    lora = LoraConfig(method="ia3", targets=["q_proj", "down_proj"])
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    adapted = attach_adapter(model, lora, 0)
    shapes = {
        name.removeprefix("base_model.model.model.layers.").removesuffix(".ia3_l.default"): tuple(value.shape)
        for name, value in adapted.named_parameters()
        if "ia3_" in name
    }
    # One number for each output of q_proj, 32, and for each input of down_proj, 64.
    assert shapes == {
        f"{layer}.{name}": shape
        for layer in (0, 1)
        for name, shape in {"self_attn.q_proj": (32, 1), "mlp.down_proj": (1, 64)}.items()
    }


def test_an_architecture_without_known_names_is_refused_with_its_own() -> None:
    model = build(LlamaForCausalLM, LlamaConfig(**SIZES))
    for layer in model.model.layers:
        for block, names in ((layer.self_attn, ("k_proj", "v_proj")), (layer.mlp, ("down_proj",))):
            for name in names:
                setattr(block, f"odd_{name}", getattr(block, name))
                delattr(block, name)
    with pytest.raises(ConfigError, match=r"lora.targets=auto knows no keys.*odd_k_proj"):
        ia3_targets(model, LoraConfig(method="ia3"))


def test_names_are_as_short_as_they_can_be() -> None:
    everything = ["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.0.mlp.c_fc", "h.1.attn.c_proj", "h.1.mlp.c_proj"]
    assert shortest_ends(["h.0.mlp.c_fc"], everything) == ["c_fc"]
    assert shortest_ends(["h.0.mlp.c_proj", "h.1.mlp.c_proj"], everything) == ["mlp.c_proj"]
    assert shortest_ends(["h.1.mlp.c_proj"], everything) == ["h.1.mlp.c_proj"]
