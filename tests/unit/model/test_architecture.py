import json
from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING, BertConfig, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from loralab.config.model import ModelConfig
from loralab.errors import ModelError
from loralab.model.architecture import causal_class, check_causal
from loralab.model.load import load_config


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("t5", "t5 is an encoder-decoder, which answers a text instead of continuing it"),
        ("whisper", "whisper is an encoder-decoder"),
        ("bart", "bart is an encoder-decoder"),
        ("gemma3", r"gemma3 also reads images or sound \(vision_config\). Give its text model"),
        ("llava", "llava also reads images or sound"),
        ("bert", "bert is an encoder, which reads a text in both directions"),
        ("vit", "transformers knows none of type 'vit'"),
    ],
)
def test_other_kinds_of_model_are_refused_with_the_reason(kind: str, reason: str) -> None:
    with pytest.raises(ModelError, match=f"model=other is not a causal language model: {reason}"):
        check_causal(ModelConfig(name="other", path="owner/other"), CONFIG_MAPPING[kind]())


@pytest.mark.parametrize("kind", [
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma2", "phi", "phi3", "gpt2", "gptj", "gpt_neox",
    "falcon", "opt", "bloom", "mpt", "starcoder2", "deepseek_v3", "dbrx",
])  # fmt: skip
def test_causal_language_models_pass(kind: str) -> None:
    config = CONFIG_MAPPING[kind]()
    check_causal(ModelConfig(path="owner/model"), config)
    assert (
        causal_class(ModelConfig(path="owner/model"), config).__name__.endswith("ForCausalLM")
        or kind == "gpt2"
    )


def test_text_models_and_decoders_of_refused_kinds_pass() -> None:
    for config in (Gemma3TextConfig(), BertConfig(is_decoder=True)):
        check_causal(ModelConfig(path="owner/model"), config)
    assert causal_class(ModelConfig(path="owner/model"), LlamaConfig()) is LlamaForCausalLM


def test_a_folder_with_such_a_config_is_refused_before_anything_loads(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True}))
    with pytest.raises(ModelError, match="is not a causal language model: t5 is an encoder-decoder"):
        load_config(ModelConfig(path=str(tmp_path)))
