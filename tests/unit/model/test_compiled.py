import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, Qwen3Config

from loralab.errors import ConfigError
from loralab.model.compiled import check_compiler, compile_elementwise

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(**SMALL), 2 * (2 + 1) + 1),  # Two norms and a gate in a layer, and the last norm.
        (Qwen3Config(**SMALL), 2 * (2 + 2 + 1) + 1),  # And norms of queries and keys.
        (Gemma2Config(**SMALL), 2 * (4 + 1) + 1),
    ],
    ids=["llama", "qwen3", "gemma2"],
)
def test_norms_and_gates_are_found(config, expected):
    assert compile_elementwise(AutoModelForCausalLM.from_config(config)) == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_layers_give_the_same_outputs_and_gradients():
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL))
    compiled = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL))
    compiled.load_state_dict(plain.state_dict())
    compile_elementwise(compiled)
    for shape in ((1, 5), (3, 11)):
        ids = torch.randint(3, 97, shape)
        results = []
        for model in (plain, compiled):
            model.zero_grad()
            logits = model(input_ids=ids).logits
            logits.square().sum().backward()
            results.append([logits, *(parameter.grad.clone() for parameter in model.parameters())])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_model_without_them_is_refused():
    """GPT-2 has layer norms, and no gate."""
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=97)
    with pytest.raises(ConfigError, match="no norm and no gate that it knows in GPT2LMHeadModel"):
        compile_elementwise(AutoModelForCausalLM.from_config(config))


def test_without_a_compiler_the_key_is_refused(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"trainer.speed.compile=true needs a C\+\+ compiler"):
        check_compiler(torch.device("cpu"))
