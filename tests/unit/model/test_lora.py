from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from loralab.config.schema import LoraConfig, ModelConfig, QuantConfig
from loralab.errors import ConfigError, ModelError
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, load_adapter, resolve_targets, save_adapter, trainable

CPU = torch.device("cpu")
ALL = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def load(tiny_model_dir: Path, quant: str = "none"):
    return load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name=quant), CPU, torch.float32)


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_all_linear_leaves_head_and_embeddings_out(tiny_model_dir: Path, quant: str) -> None:
    assert resolve_targets(load(tiny_model_dir, quant), "all_linear") == ALL


def test_a_target_that_matches_nothing_lists_the_closest(tiny_model_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"'q_prj' matches no linear layer.*q_proj"):
        resolve_targets(load(tiny_model_dir), ["v_proj", "q_prj"])
    with pytest.raises(ConfigError, match="lm_head"):
        resolve_targets(load(tiny_model_dir), ["lm_head"])


def test_new_adapter_changes_nothing_and_is_seeded(tiny_model_dir: Path) -> None:
    ids = torch.arange(10)[None]
    base = load(tiny_model_dir)
    expected = base(input_ids=ids).logits
    adapted = attach_adapter(base, LoraConfig(r=4), seed=3)
    torch.testing.assert_close(adapted(input_ids=ids).logits, expected, rtol=0, atol=0)
    again = attach_adapter(load(tiny_model_dir), LoraConfig(r=4), seed=3)
    other = attach_adapter(load(tiny_model_dir), LoraConfig(r=4), seed=4)
    first, same, different = (trainable(model) for model in (adapted, again, other))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], different[name]) for name in first)


def test_update_is_scaled_by_alpha_over_rank(tiny_model_dir: Path) -> None:
    layer_name = "model.layers.0.self_attn.q_proj"
    adapted = attach_adapter(load(tiny_model_dir), LoraConfig(r=4, alpha=6.0, targets=["q_proj"]), 0)
    layer = adapted.get_base_model().get_submodule(layer_name)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(up)
    inputs = torch.randn(3, 64)
    expected = inputs @ layer.base_layer.weight.T + (6.0 / 4) * (inputs @ down.T @ up.T)
    torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_saved_adapter_opens_with_plain_peft_and_ours(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    adapted = attach_adapter(load(tiny_model_dir), LoraConfig(r=4), 0).eval()
    for parameter in trainable(adapted).values():
        torch.nn.init.normal_(parameter, std=0.1)
    weights = {name: parameter.detach().clone() for name, parameter in trainable(adapted).items()}
    save_adapter(adapted, tokenizer, weights, tmp_path)
    ids = torch.arange(12)[None]
    expected = adapted(input_ids=ids).logits
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    plain = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)
    ours = load_adapter(load(tiny_model_dir), tmp_path, torch.float32)
    torch.testing.assert_close(ours(input_ids=ids).logits, expected, rtol=0, atol=0)
    assert (tmp_path / "chat_template.jinja").is_file()
    assert not trainable(ours)


def test_a_folder_without_adapter_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no adapter"):
        load_adapter(load(tiny_model_dir), tmp_path, torch.float32)


def test_a_model_without_linear_layers_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=4))
    with pytest.raises(ConfigError, match="GPT2LMHeadModel has no linear layers"):
        resolve_targets(model, "all_linear")
