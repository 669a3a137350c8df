"""Which description of a model a plan goes by."""

import pytest
from transformers import AutoConfig

from loralab.config.model import ModelConfig
from loralab.errors import ModelError
from loralab.model import load
from loralab.model.load import plan_config

ARCHITECTURE = {
    "model_type": "llama", "hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50,
}  # fmt: skip


def test_a_folder_speaks_for_itself(tiny_model_dir):
    found = plan_config(ModelConfig(path=str(tiny_model_dir), architecture=ARCHITECTURE))
    assert (found.hidden_size, found.num_hidden_layers) == (64, 2)


def test_a_model_of_the_hub_is_described_by_its_preset(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(load, "check_reachable", refuse)
    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    found = plan_config(ModelConfig("large", "nobody/large", architecture=ARCHITECTURE))
    assert (found.hidden_size, found.num_hidden_layers, found.vocab_size) == (96, 3, 50)


def test_the_cache_comes_before_the_preset(monkeypatch, tiny_model_dir):
    cached = tiny_model_dir / "config.json"
    monkeypatch.setattr(load, "try_to_load_from_cache", lambda *_, **__: str(cached))
    monkeypatch.setattr(load, "check_reachable", lambda *_: None)
    real = AutoConfig.from_pretrained
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *_, **__: real(str(tiny_model_dir)))
    assert plan_config(ModelConfig("large", "nobody/large", architecture=ARCHITECTURE)).hidden_size == 64


def test_without_a_description_the_hub_is_asked(monkeypatch):
    asked = []

    def answer(config, location):
        asked.append(location)
        raise ModelError("cannot be reached")

    monkeypatch.setattr(load, "check_reachable", answer)
    with pytest.raises(ModelError, match="cannot be reached"):
        plan_config(ModelConfig("large", "nobody/large"))
    assert asked == ["nobody/large"]


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ({"model_type": "lama"}, "Unrecognized model identifier: lama."),
        ({"hidden_size": 64}, "AutoConfig.for_model() missing 1 required positional argument: 'model_type'."),
        (
            {"model_type": "llama", "hidden_size": "wide"},
            "Validation error for field 'hidden_size': TypeError: Field 'hidden_size' expected int, got str "
            "(value: 'wide').",
        ),
    ],
    ids=["type", "no_type", "size"],
)
def test_a_description_of_nothing_is_refused(architecture, reason):
    with pytest.raises(ModelError) as caught:
        plan_config(ModelConfig("large", "nobody/large", architecture=architecture))
    assert str(caught.value) == (
        f"model.architecture of model=large describes no model that transformers knows: {reason} "
        "Give model_type and its sizes as in the model's config.json."
    )


def test_a_preset_of_no_causal_model_is_refused():
    with pytest.raises(ModelError, match="model=t5 is not a causal language model: t5 is an encoder-decoder"):
        plan_config(ModelConfig("t5", "nobody/t5", architecture={"model_type": "t5"}))
