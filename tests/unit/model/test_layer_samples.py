from collections import Counter

import pytest
from transformers import Gemma2Config, LlamaConfig

from loralab.config.model import ModelConfig
from loralab.model.layer_samples import (
    LayerSample,
    decoder_layers,
    extrapolate,
    layer_kinds,
    layer_stages,
    only_layers,
    sample_layers,
)
from loralab.model.load import skeleton

SIZES = {
    "vocab_size": 10, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4,
}  # fmt: skip


def test_of_equal_layers_the_ends_run_and_then_one_more():
    assert sample_layers("a" * 32) == [LayerSample((0, 31), 0), LayerSample((0, 16, 31), 30)]


def test_of_two_kinds_both_ends_of_each_run_and_then_one_more_of_each():
    kinds = "ab" * 20
    ends = (0, 1, 38, 39)
    assert sample_layers(kinds) == [
        LayerSample(ends, 0), LayerSample((0, 1, 20, 38, 39), 18), LayerSample((0, 1, 21, 38, 39), 18)
    ]  # fmt: skip


def test_a_kind_with_one_layer_needs_no_line():
    # DeepSeek: a dense layer, then mixtures of experts.
    assert sample_layers("d" + "m" * 60) == [LayerSample((0, 1, 60), 0), LayerSample((0, 1, 31, 60), 58)]


@pytest.mark.parametrize("kinds", ["a", "aa", "aaa", "abcd", "abcabc"])
def test_few_layers_all_run(kinds):
    assert sample_layers(kinds) == [LayerSample(tuple(range(len(kinds))), 0)]


def test_a_line_goes_through_both_samples():
    traced = [{"head": Counter(kept=100, fixed=7)}, {"head": Counter(kept=130, fixed=7)}]
    assert extrapolate(traced, [0, 10]) == {"head": Counter(kept=400, fixed=7)}


def test_each_kind_has_a_line_of_its_own():
    traced = [{"head": Counter(kept=10)}, {"head": Counter(kept=13)}, {"head": Counter(kept=15)}]
    assert extrapolate(traced, [0, 2, 4]) == {"head": Counter(kept=10 + 2 * 3 + 4 * 5)}


def test_stages_say_which_layer_of_its_kind_runs_backward():
    stages = layer_stages("ababab", (0, 1, 2, 4, 5))
    assert [stage.split()[3] for stage in stages] == ["first", "first", "middle", "last", "last"]
    assert [stage[-1] for stage in stages] == ["0", "1", "0", "0", "1"]


def test_alternating_attention_makes_two_kinds():
    model = skeleton(ModelConfig(), Gemma2Config(num_hidden_layers=4, **SIZES))
    layers = decoder_layers(model)
    assert layers is not None
    first, second, third, fourth = layer_kinds(model, layers)
    assert first == third != second == fourth


def test_a_cut_model_has_only_the_chosen_layers_and_is_whole_again_afterwards():
    model = skeleton(ModelConfig(), LlamaConfig(num_hidden_layers=4, **SIZES))
    layers = decoder_layers(model)
    assert layers is not None
    last = layers[3]
    with only_layers(model, [0, 3]) as kept:
        assert list(kept) == [layers[0], last]
        assert (model.config.num_hidden_layers, last.self_attn.layer_idx) == (2, 1)
    assert (len(layers), model.config.num_hidden_layers, last.self_attn.layer_idx) == (4, 4, 3)
