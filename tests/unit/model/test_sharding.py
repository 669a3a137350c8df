"""Decoder layers that two real processes hold together."""

import json
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig

from loralab.config.model import ModelConfig
from loralab.distributed.launch import launch
from loralab.errors import ModelError
from loralab.model.prequantized import prequantized
from loralab.model.sharding import check_splittable

TWO = """
import json, sys
import torch
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM
from loralab.config.model import LoraConfig, QuantConfig
from loralab.data.collate import MicroBatch
from loralab.distributed import group
from loralab.model.checkpointing import recompute_layers
from loralab.model.fused_lora import fuse_lora
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, causal_lm, count_parameters
from loralab.config.model import ModelConfig
from loralab.model.sharding import shard_base
from loralab.modules.sft import token_losses

folder, model_dir, quant = sys.argv[1:]
with group.joined("cpu"):
    ids = torch.arange(24).reshape(2, 12) + 5
    batch = MicroBatch(ids, torch.ones_like(ids), ids)
    found = {}
    def run(shard):
        torch.manual_seed(0)
        base = load_base(ModelConfig(path=model_dir), QuantConfig(quant), torch.device("cpu"), torch.float32)
        recompute_layers(base, True)
        model = attach_adapter(base, LoraConfig(r=4, init="gaussian"), 0)
        assert fuse_lora(model) == 14
        whole = {name: each.numel() for name, each in model.named_parameters()}
        if shard:
            found["counted"] = [count_parameters(model)]
            shard_base(model)
            split = {name: each for name, each in model.named_parameters() if isinstance(each, DTensor)}
            held = {name: each.to_local().numel() / whole[name] for name, each in split.items()}
            found["split"] = sorted({round(share, 3) for share in held.values()})
            found["names"] = sorted(held)
            found["adapter_is_split"] = any("lora_" in name for name in held)
        loss = token_losses(model.train(), batch).losses.sum()
        loss.backward()
        if shard:
            found["counted"].append(count_parameters(model))
        grads = [p.grad.double().sum().item() for n, p in model.named_parameters() if p.requires_grad]
        return [loss.item(), *grads]
    found["whole"], found["sharded"] = run(False), run(True)
    open(f"{folder}/{group.rank()}.json", "w").write(json.dumps(found))
"""


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_layers_are_split_in_two_and_compute_the_same(
    quant: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    assert launch([sys.executable, "-c", TWO, str(tmp_path), str(tiny_model_dir), quant], 2, {}) == 0
    for number in (0, 1):
        found = json.loads((tmp_path / f"{number}.json").read_text())
        assert found["split"] == [0.5]
        assert not found["adapter_is_split"]
        assert found["counted"][0] == found["counted"][1]
        # Seven linear layers and two norms in each of two layers; embeddings, last norm and head are whole.
        assert len(found["names"]) == 2 * 9
        assert all(".layers." in name for name in found["names"])
        assert found["sharded"] == pytest.approx(found["whole"], rel=1e-6)


@pytest.mark.parametrize(
    ("stored", "label"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes int8"),
        ({"quant_method": "gptq", "bits": 4}, "GPTQ 4-bit"),
    ],
    ids=["int8", "gptq"],
)
def test_a_base_whose_stored_weights_cannot_be_split_is_refused(
    stored: dict[str, object], label: str
) -> None:
    found = prequantized(LlamaConfig(quantization_config=stored))
    with pytest.raises(ModelError, match=rf"trainer.strategy=fsdp cannot split model=mine.*\({label}\)"):
        check_splittable(ModelConfig(name="mine"), found)


def test_ordinary_weights_and_those_of_four_bits_can_be_split() -> None:
    four_bits = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    for config in (LlamaConfig(), LlamaConfig(quantization_config=four_bits)):
        check_splittable(ModelConfig(), prequantized(config))
