import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from tests.unit.model.tiny_models import CONFIGS, VOCABULARY, build
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase, T5Config

from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.errors import ConfigError, ModelError
from loralab.model.load import load_base, skeleton
from loralab.model.lora import attach_adapter, save_adapter, trainable
from loralab.model.targets import find_targets, resolve_targets

QKVO = {"q_proj": 2, "k_proj": 2, "v_proj": 2, "o_proj": 2}
GATED = {"gate_proj": 2, "up_proj": 2, "down_proj": 2}
FUSED_QKV = {"query_key_value": 2, "dense": 2}
FOUR_TO_H = {"dense_h_to_4h": 2, "dense_4h_to_h": 2}
COMPRESSED = {"q_a_proj": 2, "q_b_proj": 2, "kv_a_proj_with_mqa": 2, "kv_b_proj": 2, "o_proj": 2}
EXPECTED: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "llama": (QKVO, GATED),
    "mistral": (QKVO, GATED),
    "qwen2": (QKVO, GATED),
    "qwen3": (QKVO, GATED),
    "gemma2": (QKVO, GATED),
    "gemma3": (QKVO, GATED),
    "phi": ({"q_proj": 2, "k_proj": 2, "v_proj": 2, "dense": 2}, {"fc1": 2, "fc2": 2}),
    "phi3": ({"qkv_proj": 2, "o_proj": 2}, {"gate_up_proj": 2, "down_proj": 2}),
    # Both blocks of GPT-2 call their output layer c_proj.
    "gpt2": ({"c_attn": 2, "c_proj": 2}, {"c_fc": 2, "c_proj": 2}),
    "gptj": ({"q_proj": 2, "k_proj": 2, "v_proj": 2, "out_proj": 2}, {"fc_in": 2, "fc_out": 2}),
    "gpt_neox": (FUSED_QKV, FOUR_TO_H),
    "falcon": (FUSED_QKV, FOUR_TO_H),
    "opt": ({"q_proj": 2, "k_proj": 2, "v_proj": 2, "out_proj": 2}, {"fc1": 2, "fc2": 2}),
    "bloom": (FUSED_QKV, FOUR_TO_H),
    "mpt": ({"Wqkv": 2, "out_proj": 2}, {"up_proj": 2, "down_proj": 2}),
    "starcoder2": (QKVO, {"c_fc": 2, "c_proj": 2}),
    # A shared expert of its own, reachable by name; the router and the shared expert's gate stay out.
    "qwen2_moe": (QKVO, GATED),
}  # fmt: skip
"""Attention and feed-forward layers of two decoder layers, by last part of the name."""


def counts(names: list[str]) -> Counter[str]:
    return Counter(name.rpartition(".")[2] for name in names)


@pytest.mark.parametrize("family", EXPECTED)
def test_groups_are_the_layers_of_the_architecture(family: str) -> None:
    model = build(family)
    attention, mlp = (Counter(part) for part in EXPECTED[family])
    assert counts(resolve_targets(model, LoraConfig(targets="attention"))) == attention
    assert counts(resolve_targets(model, LoraConfig(targets="mlp"))) == mlp
    assert counts(resolve_targets(model, LoraConfig(targets="auto"))) == attention + mlp
    outside = Counter({"project_in": 1, "project_out": 1} if family == "opt" else {})
    assert counts(resolve_targets(model, LoraConfig(targets="all_linear"))) == attention + mlp + outside


def test_mixtral_has_linear_layers_in_attention_alone() -> None:
    model = build("mixtral")
    for group in ("auto", "attention", "all_linear"):
        assert counts(resolve_targets(model, LoraConfig(targets=group))) == Counter(QKVO)
    with pytest.raises(ConfigError, match=r"lora.targets=mlp matches no layer of MixtralForCausalLM"):
        resolve_targets(model, LoraConfig(targets="mlp"))


@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3"])
def test_deepseek_leaves_out_what_peft_takes_for_experts_and_says_so(family: str) -> None:
    model = build(family)
    for group in ("auto", "attention", "all_linear"):
        assert counts(resolve_targets(model, LoraConfig(targets=group))) == Counter(COMPRESSED)
    reason = (
        "down_proj, gate_proj, up_proj left out: in this family PEFT takes these names for the fused experts"
    )
    assert find_targets(model, LoraConfig()).summary.endswith(f"({reason})")
    for targets in ("mlp", ["gate_proj"], r".*shared_experts\.up_proj"):
        with pytest.raises(ConfigError, match="PEFT takes these names for the fused experts"):
            resolve_targets(model, LoraConfig(targets=targets))
    # Other methods are not converted.
    assert counts(resolve_targets(model, LoraConfig(method="vera")))["gate_proj"] == 2


@pytest.mark.parametrize("family", CONFIGS)
def test_a_step_trains_the_adapter_alone_and_peft_opens_it(
    family: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    base = build(family)
    frozen = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    names = resolve_targets(base, LoraConfig(r=4))
    adapted = attach_adapter(base, LoraConfig(r=4), seed=0)
    placed = [n for n, m in adapted.get_base_model().named_modules() if isinstance(m, LoraLayer)]
    assert placed == names
    ids = (torch.arange(24) * 7 % VOCABULARY).reshape(2, 12)
    optimizer = torch.optim.Adam(trainable(adapted).values(), lr=3e-2)
    losses = []
    for _ in range(5):
        loss = adapted(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02
    after = {n.removeprefix("base_model.model.").replace(".base_layer", ""): p
             for n, p in adapted.named_parameters() if ".lora_" not in n}  # fmt: skip
    assert all(torch.equal(after[name], values) for name, values in frozen.items())
    save_adapter(adapted, tokenizer, {n: p.detach().clone() for n, p in trainable(adapted).items()}, tmp_path)
    plain = PeftModel.from_pretrained(build(family), str(tmp_path)).eval()
    torch.testing.assert_close(plain(ids).logits, adapted.eval()(ids).logits, rtol=1e-5, atol=1e-5)


def test_the_selector_is_short_and_exact() -> None:
    llama, gpt2 = build("llama"), build("gpt2")
    assert find_targets(llama, LoraConfig(targets=["v_proj", "q_proj"])).selector == ["q_proj", "v_proj"]
    assert find_targets(gpt2, LoraConfig(targets="attention")).selector == ["attn.c_attn", "attn.c_proj"]
    chosen = find_targets(llama, LoraConfig(targets=["q_proj", "up_proj"], layers=[1]))
    assert chosen.names == ["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"]
    assert chosen.selector == r"model\.layers\.(1)\.(self_attn\.q_proj|mlp\.up_proj)"
    matched = [name for name, _ in llama.named_modules() if re.fullmatch(chosen.selector, name)]
    assert matched == chosen.names
    # PEFT would read an expression as last names here.
    deepseek = find_targets(build("deepseek_v3"), LoraConfig(targets=["o_proj"], layers=[0]))
    assert deepseek.selector == ["model.layers.0.self_attn.o_proj"]


def test_the_summary_counts_layers_by_kind() -> None:
    assert find_targets(build("llama"), LoraConfig(targets=["q_proj", "down_proj"])).summary == (
        "q_proj x 2, down_proj x 2"
    )


def test_names_and_expressions_choose_layers() -> None:
    model = build("llama")
    assert resolve_targets(model, LoraConfig(targets=["layers.1.self_attn.q_proj"])) == [
        "model.layers.1.self_attn.q_proj"
    ]
    assert resolve_targets(model, LoraConfig(targets="v_proj")) == [
        "model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj",
    ]  # fmt: skip
    assert resolve_targets(model, LoraConfig(targets=r".*layers\.0\..*(k|o)_proj")) == [
        "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.o_proj",
    ]  # fmt: skip
    assert len(resolve_targets(model, LoraConfig(targets=".*"))) == 14
    assert resolve_targets(model, LoraConfig(targets=".*(lm_head|embed_tokens)")) == [
        "model.embed_tokens", "lm_head",
    ]  # fmt: skip
    assert resolve_targets(model, LoraConfig(targets=["lm_head"])) == ["lm_head"]


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"targets": ["q_prj"]}, r"lora.targets: 'q_prj' matches no linear layer.* Closest: q_proj"),
        ({"targets": r".*\.qproj"}, r"matches no linear layer"),
        ({"targets": "(q_proj"}, r"'\(q_proj' is neither auto, attention, mlp, all_linear, nor a name"),
        ({"targets": ["input_layernorm"]}, r"takes no low-rank.*lora.modules_to_save=\[input_layernorm\]"),
        ({"layers": [1, 2]}, r"lora.layers=\[2\]: this model has 2 decoder layers, 0 to 1"),
        ({"targets": ["lm_head"], "layers": [0]}, r"holds none of the layers"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(lora: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_targets(build("llama"), LoraConfig(**lora))


def test_what_trains_whole_gets_no_update() -> None:
    names = resolve_targets(build("llama"), LoraConfig(modules_to_save=["layers.0.mlp", "q_proj"]))
    assert counts(names) == Counter({"k_proj": 2, "v_proj": 2, "o_proj": 2, **dict.fromkeys(GATED, 1)})


@pytest.mark.parametrize("quant", ["nf4", "int8"])
def test_quantized_layers_are_found(tiny_model_dir: Path, quant: str) -> None:
    base = load_base(
        ModelConfig(path=str(tiny_model_dir)), QuantConfig(name=quant), torch.device("cpu"), torch.float32
    )
    assert counts(resolve_targets(base, LoraConfig())) == Counter(QKVO) + Counter(GATED)


def test_t5_is_refused_as_not_causal() -> None:
    with pytest.raises(ModelError, match="causal"):
        skeleton(ModelConfig(name="t5", path="t5"), T5Config())


def test_a_model_without_linear_layers_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=0, n_head=4))
    with pytest.raises(ConfigError, match="GPT2LMHeadModel has no linear layers"):
        resolve_targets(model, LoraConfig())
