"""Every method on every kind of base: it trains, leaves the base alone, and is read back by PEFT alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.config.schema import OptimConfig, ScheduleConfig, TrainConfig
from loralab.data.collate import MicroBatch, StepBatch
from loralab.data.masking import IGNORE_INDEX
from loralab.data.plan import StepPlan
from loralab.metrics import TRAIN_LOSS
from loralab.model.adapters.context import AdapterContext
from loralab.model.head import hidden_states, projection
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, causal_lm, load_adapter, save_adapter
from loralab.modules.sft import SFTModule

METHODS = ["adalora", "vera", "ia3", "prefix", "prompt", "ptuning"]
STEPS = 6


@pytest.fixture(scope="module")
def batch() -> MicroBatch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 300, (4, 16), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    mask[3, 5:] = 0
    labels = ids.masked_fill(mask == 0, IGNORE_INDEX)
    labels[:, :3] = IGNORE_INDEX
    return MicroBatch(ids, mask, labels)


def load(folder: Path, quant: str, dtype: torch.dtype):
    quantization = QuantConfig(name=quant, double_quant=quant in ("nf4", "fp4"))
    return load_base(ModelConfig(path=str(folder)), quantization, torch.device("cpu"), dtype)


def build(
    folder: Path, tokenizer: PreTrainedTokenizerBase, method: str, quant: str, dtype: torch.dtype
) -> SFTModule:
    lora = LoraConfig(method=method, r=4, virtual_tokens=3)
    context = AdapterContext(tokenizer=tokenizer, total_steps=STEPS)
    model = attach_adapter(load(folder, quant, dtype), lora, 0, context)
    config = TrainConfig(optim=OptimConfig(lr=0.05), schedule=ScheduleConfig(name="constant", warmup=0))
    module = SFTModule(model, StepPlan(8, 8, STEPS, None, 1, 0), config, dtype)
    optimizer = module.configure_optimizers()
    module.optimizers = lambda: optimizer  # type: ignore[method-assign]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    return module.train()


def train(module: SFTModule, batch: MicroBatch) -> Iterator[float]:
    num_supervised = batch.num_supervised
    for step in range(STEPS):
        tokens = int(batch.attention_mask.sum())
        whole = StepBatch([batch], step, float(num_supervised), num_supervised, tokens)
        yield float(module.training_step(whole, 0)[TRAIN_LOSS])


@torch.inference_mode()
def logits(model: PeftModel, batch: MicroBatch) -> Tensor:
    """Of the real tokens, as training and validation compute them."""
    values = projection(causal_lm(model))(hidden_states(model, batch))
    return values[batch.attention_mask.bool()].float()


@torch.inference_mode()
def full_logits(model: torch.nn.Module, batch: MicroBatch) -> Tensor:
    """Of the real tokens, by the model's own forward pass."""
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return output[:, -batch.input_ids.shape[1] :][batch.attention_mask.bool()].float()


def frozen_bytes(model: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().clone() for name, value in model.named_parameters() if not value.requires_grad
    }


@pytest.mark.parametrize("quant", ["none", "nf4", "fp4", "int8"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_on_a_frozen_base_and_peft_alone_reads_it_back(
    tiny_model_dir: Path,
    tokenizer: PreTrainedTokenizerBase,
    batch: MicroBatch,
    tmp_path: Path,
    method: str,
    quant: str,
) -> None:
    module = build(tiny_model_dir, tokenizer, method, quant, torch.float32)
    model, before = module.model, frozen_bytes(module.model)
    logits(model.eval(), batch)  # A validation before training must not stop gradients.
    model.train()
    losses = list(train(module, batch))
    assert losses[-1] < losses[0] - 0.005
    after = frozen_bytes(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

    tuned = logits(model.eval(), batch)
    torch.testing.assert_close(tuned, full_logits(model, batch), rtol=1e-5, atol=1e-5)
    base = full_logits(load(tiny_model_dir, quant, torch.float32).eval(), batch)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model, batch), base, rtol=1e-5, atol=1e-5)
    assert (tuned - base).abs().max() > 1e-2

    save_adapter(model, tokenizer, module.masters.state_dict(), tmp_path)
    again = PeftModel.from_pretrained(load(tiny_model_dir, quant, torch.float32), str(tmp_path)).eval()
    torch.testing.assert_close(full_logits(again, batch), tuned, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "quant"),
    [
        ("ia3", "nf4"),
        ("ia3", "int8"),
        ("adalora", "int8"),
        ("adalora", "none"),
        ("vera", "int8"),
        ("prefix", "nf4"),
    ],
)
def test_sixteen_bits_train_and_are_read_back(
    tiny_model_dir: Path,
    tokenizer: PreTrainedTokenizerBase,
    batch: MicroBatch,
    tmp_path: Path,
    method: str,
    quant: str,
) -> None:
    module = build(tiny_model_dir, tokenizer, method, quant, torch.bfloat16)
    losses = list(train(module, batch))
    assert losses[-1] < losses[0] - 0.005
    model = module.model.eval()
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    assert output.logits.dtype == torch.bfloat16
    save_adapter(model, tokenizer, module.masters.state_dict(), tmp_path)
    again = load_adapter(load(tiny_model_dir, quant, torch.bfloat16), tmp_path, torch.bfloat16)
    assert torch.equal(logits(again, batch), logits(model, batch))
