"""Layer inputs that leave the device: the same numbers, whenever the copies really run."""

import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlamaConfig, LlamaForCausalLM

from loralab.config.model import LoraConfig
from loralab.data.collate import MicroBatch
from loralab.model.attention import enable_document_attention
from loralab.model.checkpointing import recompute_layers
from loralab.model.lora import attach_adapter, trainable
from loralab.model.offloading import Copy, Offload
from loralab.modules.sft import token_losses

LAYERS, WIDTH, HIDDEN = 4, 24, 32
CONFIG = LlamaConfig(
    vocab_size=50, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=False,
)  # fmt: skip
BOUNDS = (0, 7, 16, 24, 40, 48)


class LateLink:
    """The slowest link that keeps the promises of `Link`: nothing is copied until it is waited for.

    What is copied to holds NaN until then, so that reading too early shows. Memory on the device is not held
    here: it must be there still when the copy runs.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Any, Any]] = []
        self.ordered = 0
        self.log: list[str] = []

    def takes(self, tensor: Tensor) -> bool:
        return tensor.is_floating_point()

    def to_host(self, tensor: Tensor) -> Copy:
        self.log.append("out")
        host = torch.full_like(tensor, torch.nan)
        return self._order(host, lambda: host, weakref.ref(tensor))

    def to_device(self, host: Any, device: torch.device) -> Copy:
        self.log.append("in")
        tensor = torch.full_like(host, torch.nan)
        return self._order(tensor, weakref.ref(tensor), lambda: host)

    def wait(self, done: Any) -> None:
        while self.waiting and self.waiting[0][0] <= done:
            _, to, source = self.waiting.pop(0)
            to().copy_(source())

    def _order(self, data: Tensor, to: Any, source: Any) -> Copy:
        self.ordered += 1
        self.waiting.append((self.ordered, to, source))
        return Copy(data, self.ordered)


def micro_batch(seed: int, packed: bool) -> MicroBatch:
    ids = torch.randint(0, 50, (2, WIDTH), generator=torch.Generator().manual_seed(seed))
    batch = MicroBatch(ids, torch.ones_like(ids), ids)
    if not packed:
        return batch
    lengths = [end - start for start, end in pairwise(BOUNDS)]
    positions = torch.cat([torch.arange(length) for length in lengths]).view(2, WIDTH)
    return batch._replace(position_ids=positions, bounds=BOUNDS)


def gradients(link: LateLink | None, every: bool | int, packed: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Two micro-batches of a step on the same random model: their losses, and all gradients."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(CONFIG)
    recompute_layers(base, every, link)
    if packed:
        enable_document_attention(base)
    model = attach_adapter(base, LoraConfig(r=4, dropout=0.1), seed=0).train()
    weights = trainable(model)
    for weight in weights.values():
        torch.nn.init.normal_(weight, std=0.1)
    losses = []
    for seed in (1, 2):
        loss = token_losses(model, micro_batch(seed, packed)).losses.sum()
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses), [weight.grad for weight in weights.values()]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("every", "num_inputs"), [(True, 4), (2, 2), (3, 2)])
def test_losses_and_gradients_are_the_same_however_late_copies_run(every, num_inputs, packed) -> None:
    link = LateLink()
    losses, found = gradients(link, every, packed)
    expected_losses, expected = gradients(None, every, packed)
    assert torch.equal(losses, expected_losses)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    # Each input leaves; all but the last, which has not gone yet, come back; and that for two micro-batches.
    assert link.log == 2 * (["out"] * num_inputs + ["in"] * (num_inputs - 1))


def saved_by(offload: Offload, values: list[Tensor], factor: Tensor | None = None) -> list[Tensor]:
    """Products that each keep one of the values for the backward pass."""
    factor = torch.ones(3, requires_grad=True) if factor is None else factor
    with saved_tensors_hooks(offload.pack, offload.unpack):
        return [value * factor for value in values]


def test_at_most_two_of_what_left_are_on_the_device() -> None:
    offload = Offload(link := LateLink())
    packed = [offload.pack(torch.full((3,), float(number))) for number in range(6)]
    coming = []
    while packed:
        number = len(packed) - 1
        assert torch.equal(offload.unpack(packed.pop()), torch.full((3,), float(number)))
        assert offload._leaving is None
        coming.append(offload._coming is not None)
    assert coming == [True] * 5 + [False]
    assert link.log == ["out"] * 6 + ["in"] * 5


def test_a_tensor_that_leaves_is_held_until_its_copy_has_been_waited_for() -> None:
    offload = Offload(link := LateLink())
    first = offload.pack(torch.full((3,), 1.0))
    assert torch.isnan(first.host).all()  # the copy has not begun
    offload.pack(torch.full((3,), 2.0))
    assert torch.equal(first.host, torch.full((3,), 1.0))
    assert len(link.waiting) == 1


def test_any_order_of_return_gives_what_left() -> None:
    offload = Offload(LateLink())
    values = [torch.full((3,), float(number)) for number in range(4)]
    packed = [offload.pack(value.clone()) for value in values]
    for number in (1, 3, 0, 2, 2, 0):
        assert torch.equal(offload.unpack(packed[number]), values[number])


def test_a_backward_pass_that_broke_off_leaves_nothing_behind() -> None:
    offload = Offload(link := LateLink())
    packed = [offload.pack(torch.full((3,), float(number))) for number in range(3)]
    offload.unpack(packed[2])
    assert offload._coming is not None
    packed.clear()
    again = offload.pack(torch.full((3,), 7.0))
    assert offload._coming is None
    assert [number for number, *_ in link.waiting] == [link.ordered]
    assert again.previous is None
    assert torch.equal(offload.unpack(again), torch.full((3,), 7.0))


def test_autograd_keeps_what_the_link_does_not_take() -> None:
    offload = Offload(link := LateLink())
    numbers = torch.arange(3)
    assert offload.unpack(offload.pack(numbers)) is numbers
    factor = torch.ones(3, requires_grad=True)
    outputs = saved_by(offload, [torch.ones(3), 2 * torch.ones(3)], factor)
    torch.autograd.backward([output.sum() for output in outputs])
    assert link.log[:2] == ["out", "out"]
    assert torch.equal(factor.grad, torch.full((3,), 3.0))
