"""What each module of a model counts as, in families that name them differently."""

from collections import Counter

import pytest
from peft import LoraConfig, get_peft_model
from tests.unit.model import tiny_models
from torch import nn

from loralab.model.module_kinds import kind_of, module_kinds
from loralab.runs.step_parts import ADAPTED, ATTENTION, EMBEDDING, HEAD, KINDS, LAYERS, LINEAR, MLP, NORM


def test_the_modules_of_a_llama_are_told_apart() -> None:
    model = get_peft_model(tiny_models.build("llama"), LoraConfig(target_modules=["q_proj", "down_proj"]))
    kinds = {name: kind for name, _, kind in module_kinds(model)}
    assert Counter(kinds.values()) == {
        # the tokens' and the positions'
        EMBEDDING: 2,
        LAYERS: 1,
        # two layers, each with
        ATTENTION: 2,
        ADAPTED: 2 * 2,
        LINEAR: 2 * 5,
        NORM: 2 * 2 + 1,
        # the block and the function in it
        MLP: 2 * 2,
        HEAD: 1,
    }
    assert kinds["model.layers.1.self_attn.q_proj"] == ADAPTED
    assert kinds["model.layers.1.self_attn.k_proj"] == LINEAR
    assert kinds["lm_head"] == HEAD
    assert kinds["model"] == LAYERS


@pytest.mark.parametrize("family", tiny_models.CONFIGS)
def test_every_family_has_attention_norms_and_linear_layers(family: str) -> None:
    model = get_peft_model(tiny_models.build(family), LoraConfig(target_modules="all-linear"))
    found = {kind for _, _, kind in module_kinds(model)}
    assert {EMBEDDING, ATTENTION, ADAPTED, NORM, MLP, LAYERS, HEAD} <= found <= set(KINDS)


def test_what_only_holds_others_has_no_kind() -> None:
    assert kind_of(nn.ModuleList()) is None
    assert kind_of(nn.Sequential()) is None
