"""What runs only on a GPU gives the numbers of the plain path."""

import copy
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from bitsandbytes.nn import Params4bit
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from loralab.config.model import LoraConfig
from loralab.data.collate import MicroBatch
from loralab.losses.liger import is_installed, nll_in_place
from loralab.losses.sft import plain_nll, token_nll
from loralab.model import attention
from loralab.model.attention import enable_document_attention
from loralab.model.checkpointing import recompute_layers
from loralab.model.fused_lora import fuse_lora
from loralab.model.lora import attach_adapter, cast_adapter, trainable
from loralab.model.offloading import CudaLink
from loralab.model.quantize import keep_cpu_gradients
from loralab.modules.sft import token_losses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
BOUNDS = (0, 70, 71, 200, 256, 400, 512)
CONFIG = LlamaConfig(
    vocab_size=500, hidden_size=256, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=False,
)  # fmt: skip
ROUNDING = 0.05
"""Share of its norm by which a tensor may differ where bfloat16 sums are taken in another order."""


def packed() -> MicroBatch:
    ids = torch.randint(0, 500, (2, 256), generator=torch.Generator().manual_seed(0)).cuda()
    positions = torch.cat([torch.arange(end - start) for start, end in pairwise(BOUNDS)]).view(2, 256)
    return MicroBatch(ids, torch.ones_like(ids), ids, position_ids=positions.cuda(), bounds=BOUNDS)


def losses_and_gradients(base: PreTrainedModel, batch: MicroBatch) -> tuple[Tensor, list[Tensor]]:
    """Two passes, so that memory that the first gave up is used again in the second."""
    model = attach_adapter(base, LoraConfig(r=8), seed=0).train()
    cast_adapter(model, torch.bfloat16)
    weights = trainable(model)
    for weight in weights.values():
        nn.init.normal_(weight, std=0.05)
    for _ in range(2):
        losses = token_losses(model, batch).losses
        losses.sum().backward()
    return losses.detach(), [weight.grad for weight in weights.values()]


def tiny() -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(CONFIG).to("cuda", torch.bfloat16)


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """FlashAttention adds up its gradients in any order; this attention has only one."""
    monkeypatch.setattr(attention, "fits_varlen", lambda *_: False)
    with sdpa_kernel(SDPBackend.MATH):
        yield


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).float().norm() <= ROUNDING * expected.float().norm()


def test_the_kernel_for_documents_gives_what_each_document_alone_does(monkeypatch) -> None:
    base = tiny()
    enable_document_attention(base)
    in_one = losses_and_gradients(copy.deepcopy(base), packed())
    monkeypatch.setattr(attention, "fits_varlen", lambda *_: False)
    each = losses_and_gradients(base, packed())
    assert_close(in_one[0], each[0])
    for found, expected in zip(in_one[1], each[1], strict=True):
        assert_close(found, expected)


def test_a_beginning_that_documents_share_gives_what_its_copies_give() -> None:
    bounds, shared = (0, 70, 200, 256, 400, 512), 40
    batch = packed()._replace(bounds=bounds)
    ids = batch.input_ids.flatten()
    for start in bounds[1:-1]:
        ids[start : start + shared] = ids[:shared]
    positions = torch.cat([torch.arange(end - start) for start, end in pairwise(bounds)]).view(2, 256)
    batch = batch._replace(position_ids=positions.cuda())
    base = tiny()
    enable_document_attention(base)
    once = losses_and_gradients(copy.deepcopy(base), batch._replace(shared_prefix=shared))
    copies = losses_and_gradients(base, batch)
    assert_close(once[0], copies[0])
    for found, expected in zip(once[1], copies[1], strict=True):
        assert_close(found, expected)


@pytest.mark.usefixtures("repeatable")
@pytest.mark.parametrize("every", [True, 2])
def test_offloading_changes_no_number_and_leaves_the_inputs_out(every) -> None:
    found, peaks = [], []
    for link in (None, CudaLink()):
        base = tiny()
        recompute_layers(base, every, link)
        enable_document_attention(base)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found.append(losses_and_gradients(base, packed()))
        peaks.append(torch.cuda.max_memory_allocated() - before)
        del base
    (losses, gradients), (moved_losses, moved_gradients) = found
    assert torch.equal(losses, moved_losses)
    assert all(torch.equal(one, other) for one, other in zip(gradients, moved_gradients, strict=True))
    assert peaks[1] < peaks[0]


@pytest.mark.usefixtures("repeatable")
def test_many_passes_with_offloading_stay_equal() -> None:
    # The host runs far ahead of the GPU: copies that waited for too little would show sooner or later.
    base = tiny()
    recompute_layers(base, True, CudaLink())
    enable_document_attention(base)
    model = attach_adapter(base, LoraConfig(r=8), seed=0).train()
    cast_adapter(model, torch.bfloat16)
    batch, weights = packed(), list(trainable(model).values())
    results = []
    for _ in range(30):
        results.append(torch.autograd.grad(token_losses(model, batch).losses.sum(), weights))
    for later in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(later, results[0], strict=True))


@pytest.mark.skipif(not is_installed(), reason="needs liger-kernel and triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cap", [None, 5.0])
def test_the_kernel_of_the_loss_gives_the_plain_losses_and_gradients(dtype, cap) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    weight = torch.randn(40_000, 64, generator=generator, device="cuda").to(dtype)
    start = torch.randn(300, 64, generator=generator, device="cuda").to(dtype)
    targets = torch.randint(0, 40_000, (300,), generator=generator, device="cuda")

    def project(part: Tensor) -> Tensor:
        logits = part @ weight.T
        return logits if cap is None else cap * torch.tanh(logits / cap)

    results = []
    for kernel in (plain_nll, nll_in_place):
        hidden = start.clone().requires_grad_()
        losses = token_nll(hidden, targets, project, 128, is_frozen=True, nll_and_gradient=kernel)
        losses.sum().backward()
        assert losses.dtype == torch.float32
        results.append((losses.detach(), hidden.grad))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-5)
    assert_close(results[1][1], results[0][1])


def test_fused_lora_on_4_bits_gives_what_peft_does() -> None:
    base = tiny()
    for module in base.model.layers.modules():
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear):
                packed_layer = Linear4bit(
                    layer.in_features, layer.out_features, False, torch.bfloat16, True, "nf4"
                )
                packed_layer.weight = Params4bit(
                    layer.weight.data, requires_grad=False, quant_type="nf4", module=packed_layer
                )
                setattr(module, name, packed_layer.to("cuda"))
    base.is_loaded_in_4bit = True
    keep_cpu_gradients(base)
    enable_document_attention(base)
    results = []
    for fused in (False, True):
        model = attach_adapter(copy.deepcopy(base), LoraConfig(r=8), seed=0).train()
        cast_adapter(model, torch.bfloat16)
        torch.manual_seed(1)
        for weight in trainable(model).values():
            nn.init.normal_(weight, std=0.05)
        assert not fused or fuse_lora(model) == 6 * 7
        losses = token_losses(model, packed()).losses
        losses.sum().backward()
        results.append((losses.detach(), [weight.grad for weight in trainable(model).values()]))
    assert_close(results[1][0], results[0][0])
    for found, expected in zip(results[1][1], results[0][1], strict=True):
        assert_close(found, expected)
