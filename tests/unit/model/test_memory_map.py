"""What is read off between traces, against what a trace of its own gives."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, PreTrainedModel

from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.model import memory_map
from loralab.model.load import skeleton
from loralab.model.memory import estimate_memory
from loralab.model.memory_advice import resized
from loralab.model.memory_map import MemoryMap, Trace, between
from loralab.model.memory_request import MemoryRequest

TINY = LlamaConfig(
    vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=False,
)  # fmt: skip
REQUEST = MemoryRequest(
    QuantConfig("nf4"), LoraConfig(r=16), torch.bfloat16, rows=4, width=32, num_supervised=128,
    checkpointing=False,
)  # fmt: skip
KIB = 1024


@pytest.fixture(scope="module")
def tiny() -> PreTrainedModel:
    return skeleton(ModelConfig(), TINY)


@pytest.fixture(scope="module")
def mapped(tiny: PreTrainedModel) -> MemoryMap:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_map, "TRACED_TOKENS", 4096)
        return MemoryMap(tiny, REQUEST, "cuda")


def exact(model: PreTrainedModel, rank: int, rows: int, checkpointing: bool, accumulation: int = 1) -> int:
    sized = resized(REQUEST, rows, 32)
    request = replace(sized, lora=LoraConfig(r=rank), checkpointing=checkpointing, accumulation=accumulation)
    return estimate_memory(model, request, "cuda").peak


def test_parts_of_the_highest_stage_are_put_together() -> None:
    stages = {"forward": Counter({"activations": 50}), "head": Counter({"activations": 30, "logits": 40})}
    trace = Trace(Counter({"quantized weights": 7}), stages, num_trainable=10)

    once, gathered = trace.estimate(accumulates=False), trace.estimate(accumulates=True)

    assert {name: size for name, size in once.parts.items() if size} == {
        "quantized weights": 7, "activations": 30, "logits": 40,
    }  # fmt: skip
    assert gathered.parts["gradients"] == 40
    assert (once.peak, gathered.peak) == (77, 117)
    # In the update all gradients are there, and nothing of the step.
    assert replace(trace, num_trainable=100).estimate(accumulates=False).parts["gradients"] == 400


def test_a_line_goes_through_two_traces_and_on() -> None:
    low = Trace(Counter({"adapters": 100}), {"head": Counter({"logits": 8})}, 10)
    high = Trace(Counter({"adapters": 300}), {"head": Counter({"logits": 16, "workspace": 4})}, 30)

    middle, beyond = between(low, high, 0.25), between(low, high, 2.0)

    assert middle == Trace(Counter({"adapters": 150}), {"head": Counter({"logits": 10, "workspace": 1})}, 15)
    assert beyond == Trace(Counter({"adapters": 500}), {"head": Counter({"logits": 24, "workspace": 8})}, 50)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_request_is_estimated_as_the_memory_model_does(tiny, mapped, accumulation):
    request = replace(REQUEST, accumulation=accumulation)
    assert mapped.estimate(request) == estimate_memory(tiny, request, "cuda")


@pytest.mark.parametrize(
    "lora",
    [LoraConfig(r=4, dora=True), LoraConfig(method="prompt"), LoraConfig(method="vera", r=8)],
    ids=["dora", "prompt", "vera"],
)
def test_methods_that_are_not_traced_are_estimated_too(tiny, lora):
    request = replace(REQUEST, lora=lora)
    memory = MemoryMap(tiny, request, "cuda")
    expected = estimate_memory(tiny, request, "cuda")
    assert memory.estimate(request) == expected
    assert memory.at(lora.r, 4, False).estimate(False) == expected


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_place_on_the_map_takes_what_a_trace_says_or_a_little_more(tiny, mapped, checkpointing):
    for rank, rows in [(32, 128), (16, 24), (24, 24)]:
        near, traced = mapped.at(rank, rows, checkpointing), exact(tiny, rank, rows, checkpointing)
        assert 0.999 * traced <= near.estimate(False).peak <= 1.03 * traced


@pytest.mark.parametrize("checkpointing", [False, True])
def test_beyond_the_largest_trace_the_line_goes_on(tiny, mapped, checkpointing):
    far = mapped.at(16, 640, checkpointing).estimate(False).peak
    assert far == pytest.approx(exact(tiny, 16, 640, checkpointing), rel=0.01)


def test_the_largest_micro_batch_fits_and_a_slightly_larger_one_does_not(tiny, mapped):
    limit = exact(tiny, 16, 60, False)
    rows = mapped.largest_rows(limit, 16, False)
    assert 57 <= rows <= 60
    assert exact(tiny, 16, 61, False) > limit
    # Recomputing activations leaves room for more rows.
    assert mapped.largest_rows(limit, 16, True) > 1.5 * rows


def test_a_micro_batch_smaller_than_the_step_keeps_gradients(tiny, mapped):
    limit = exact(tiny, 16, 3, False)
    # Three rows of a step of four leave one for a second micro-batch, and its gradients on top.
    assert exact(tiny, 16, 3, False, accumulation=2) > limit
    assert mapped.largest_rows(limit, 16, False) == 2
    assert mapped.largest_rows(exact(tiny, 16, 4, False), 16, False) == 4


def test_no_row_fits_where_the_weights_do_not(mapped):
    assert mapped.largest_rows(64 * KIB, 16, True) == 0


def test_ranks_that_a_layer_is_too_narrow_for_are_left_out(tiny, mapped):
    # Keys and values are 32 wide.
    assert mapped.ranks == [8, 16, 32]
    assert MemoryMap(tiny, replace(REQUEST, lora=LoraConfig(method="ia3")), "cuda").ranks == []


def test_what_the_map_does_not_cover_is_traced(tiny, mapped):
    for changes in ({"quant": QuantConfig("none")}, {"width": 16, "num_supervised": 64}):
        request = replace(REQUEST, **changes)
        assert mapped.nearly(request) == estimate_memory(tiny, request, "cuda")
    inside = replace(REQUEST, lora=LoraConfig(r=24, targets="auto"), checkpointing=True)
    assert mapped.nearly(inside) == mapped.at(24, 4, True).estimate(False)


def test_an_adapter_on_the_head_alone_sends_no_gradient_through_the_layers(tiny):
    request = replace(REQUEST, lora=LoraConfig(r=8, targets=["lm_head"]))
    estimate = estimate_memory(tiny, request, "cuda")
    # 8 x (64 + 100) parameters, each with a float32 master and a bfloat16 copy.
    assert estimate.num_trainable == 8 * 164
    assert estimate.parts["adapters"] == 8 * 164 * 6


def test_the_logits_of_few_tokens_are_not_missed(monkeypatch):
    # Up to 512 tokens all logits are there at once, so that a line from 1 row to many would pass below.
    monkeypatch.setattr(memory_map, "TRACED_TOKENS", 4096)
    config = LlamaConfig.from_dict({**TINY.to_dict(), "vocab_size": 8000})
    model, request = skeleton(ModelConfig(), config), replace(REQUEST, rows=1, num_supervised=32)
    peak = estimate_memory(model, resized(request, 12, 32), "cuda").peak
    assert MemoryMap(model, request, "cuda").at(16, 12, False).estimate(False).peak >= 0.999 * peak
