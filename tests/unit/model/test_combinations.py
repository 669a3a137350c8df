"""Every start and option of LoRA on every kind of base: it trains and is read back, or is refused and why."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from loralab.config.lora_rules import lora_faults
from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.config.schema import TrainConfig
from loralab.model.adapters.context import AdapterContext
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, load_adapter, save_adapter, trainable
from loralab.optim.master import MasterWeights

CPU = torch.device("cpu")
QUANTS = ("nf4", "fp4", "int8", "none")
QUANTIZED = ("nf4", "fp4", "int8")
STEPS = 8

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gaussian": {"init": "gaussian"},
    "orthogonal": {"init": "orthogonal"},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora"},
    "corda": {"init": "corda"},
    "loftq": {"init": "loftq"},
    "eva": {"init": "eva"},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "dora_eva": {"dora": True, "init": "eva"},
    "dora_pissa": {"dora": True, "init": "pissa"},
    "dora_loftq": {"dora": True, "init": "loftq"},
    "bias_all": {"bias": "all"},
    "bias_lora_only": {"bias": "lora_only"},
    "patterns": {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"layers.1.*": 3.0}},
    "pissa_everything": {
        "init": "pissa", "rslora": True, "dropout": 0.1, "bias": "all", "trainable_tokens": ["<|im_end|>"],
        "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 3.0},
    },
    "layers": {"layers": [1]},
    "head": {"modules_to_save": ["lm_head"]},
    "norms": {"modules_to_save": ["norm"]},
    "tokens": {"trainable_tokens": ["<|im_end|>", "Ġthe"]},
    "head_update": {"targets": ["q_proj", "lm_head", "embed_tokens"]},
}  # fmt: skip
REASONS = {
    **{(option, quant): r"quantizes what is left, which nobody can rebuild"
       for option in ("pissa", "olora", "corda", "pissa_everything") for quant in QUANTIZED},
    **{(option, quant): r"lora.init=loftq corrects the error of 4 bits"
       for option in ("loftq", "dora_loftq") for quant in ("int8", "none")},
    **{("dora_pissa", quant): "which has no magnitudes as lora.dora=true learns" for quant in QUANTS},
    **{("dora_loftq", quant): "measures the magnitudes of the quantized weights" for quant in ("nf4", "fp4")},
}  # fmt: skip
"""What the user is told, where a combination cannot be."""
WORKING = [(option, quant) for option in OPTIONS for quant in QUANTS if (option, quant) not in REASONS]


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A Llama with biases in attention and tied embeddings."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, attention_bias=True,
            tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(base_dir: Path, quant: str) -> PreTrainedModel:
    return load_base(ModelConfig(path=str(base_dir)), QuantConfig(name=quant), CPU, torch.float32).eval()


def calibration() -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 300, (4, 16), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 12:] = 0
    yield {"input_ids": ids, "attention_mask": mask}


def stored(model: PreTrainedModel) -> dict[str, Tensor]:
    """The values of every weight of the base, as they lie in memory, by their names without an adapter."""
    return {
        re.sub(r"base_model\.model\.|\.token_adapter|\.base_layer|\.original_module", "", name):
        parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if not any(mark in name for mark in ("lora_", "modules_to_save", "trainable_tokens_delta"))
    }  # fmt: skip


IDS = torch.arange(3, 35).reshape(2, 16)


def train(model: PeftModel, masters: MasterWeights) -> list[float]:
    """Takes a few steps on a fixed batch and returns the loss of each."""
    optimizer, losses = torch.optim.Adam(masters.parameters(), lr=5e-3), []
    for _ in range(STEPS):
        loss = model.train()(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        masters.publish()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("option", "quant"), WORKING)
def test_it_trains_on_a_frozen_base_and_peft_alone_reads_it_back(
    option: str, quant: str, base_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    lora = LoraConfig(**{"r": 8, "targets": ["q_proj", "v_proj", "down_proj"], **OPTIONS[option]})
    assert not list(lora_faults(TrainConfig(lora=lora, quant=QuantConfig(name=quant))))
    base = load(base_dir, quant)
    frozen, expected = stored(base), base(IDS).logits
    context = AdapterContext(tokenizer=tokenizer, base_dir=str(base_dir), calibration=calibration)
    model = attach_adapter(base, lora, seed=0, context=context)
    if lora.init != "loftq":
        torch.testing.assert_close(model.eval()(IDS).logits, expected, rtol=0, atol=2e-6)
    masters = MasterWeights(trainable(model), torch.float32)
    assert all(values.dtype == torch.float32 for values in masters.parameters())
    losses = train(model, masters)
    assert losses[-1] < losses[0] - 0.03
    biases = [name for name in frozen if name.endswith("bias") and lora.bias != "none"]
    after = stored(model)
    assert all(torch.equal(after[name], frozen[name]) for name in frozen if name not in biases)
    assert any(not torch.equal(after[name], frozen[name]) for name in biases) == bool(biases)
    tuned = model.eval()(IDS).logits.detach()
    with model.disable_adapter():
        torch.testing.assert_close(model(IDS).logits, expected, rtol=0, atol=0)
    torch.testing.assert_close(model(IDS).logits, tuned, rtol=0, atol=0)

    save_adapter(model, tokenizer, masters.state_dict(), tmp_path)
    plain = PeftModel.from_pretrained(load(base_dir, quant), str(tmp_path)).eval()
    torch.testing.assert_close(plain(IDS).logits, tuned, rtol=0, atol=3e-6)
    ours = load_adapter(load(base_dir, quant), tmp_path, torch.float32)
    torch.testing.assert_close(ours(IDS).logits, tuned, rtol=0, atol=3e-6)
    with ours.disable_adapter():
        torch.testing.assert_close(ours(IDS).logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("option", "quant"), REASONS)
def test_what_cannot_be_is_refused_with_the_reason(option: str, quant: str) -> None:
    config = TrainConfig(lora=LoraConfig(r=8, **OPTIONS[option]), quant=QuantConfig(name=quant))
    assert REASONS[option, quant] in " ".join(lora_faults(config))


@pytest.mark.parametrize("option", ["plain", "pissa", "corda", "dora", "tokens", "head", "bias_all"])
def test_sixteen_bits_train_with_float32_masters(
    option: str, base_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    def load_half() -> PreTrainedModel:
        config = ModelConfig(path=str(base_dir))
        return load_base(config, QuantConfig(name="none"), CPU, torch.bfloat16).eval()

    lora = LoraConfig(r=8, **OPTIONS[option])
    context = AdapterContext(tokenizer=tokenizer, calibration=calibration)
    model = attach_adapter(load_half(), lora, seed=0, context=context)
    masters = MasterWeights(trainable(model), torch.bfloat16)
    losses = train(model, masters)
    assert losses[-1] < losses[0] - 0.05
    save_adapter(model, tokenizer, masters.state_dict(), tmp_path)
    ours = load_adapter(load_half(), tmp_path, torch.bfloat16)
    # A few roundings of 16 bits at logits around 2, where the order of the sums differs.
    torch.testing.assert_close(ours(IDS).logits, model.eval()(IDS).logits, rtol=2**-7, atol=2**-5)


@pytest.mark.parametrize("option", ["orthogonal", "pissa", "olora", "corda", "eva"])
def test_a_resumed_run_starts_from_the_same_values(
    option: str, base_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    lora = LoraConfig(r=8, **OPTIONS[option])
    context = AdapterContext(calibration=calibration)
    first = attach_adapter(load(base_dir, "none"), lora, seed=3, context=context)
    weights = {name: torch.randn_like(values) * 0.1 for name, values in trainable(first).items()}
    MasterWeights(trainable(first), torch.float32).load_state_dict(weights)
    again = attach_adapter(load(base_dir, "none"), lora, seed=3, context=context)
    MasterWeights(trainable(again), torch.float32).load_state_dict(weights)
    torch.testing.assert_close(again(IDS).logits, first(IDS).logits, rtol=0, atol=0)
    for model, folder in ((first, tmp_path / "first"), (again, tmp_path / "again")):
        save_adapter(model, tokenizer, weights, folder)
    saved = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("first", "again")]
    assert saved[0] == saved[1]
