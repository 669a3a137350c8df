import copy
from dataclasses import replace

import pytest
import torch
from transformers import Gemma2Config, GPT2Config, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.config.speed import SpeedConfig
from loralab.data.collate import MicroBatch
from loralab.errors import ConfigError
from loralab.model import block_attention, memory
from loralab.model.checkpointing import recompute_layers
from loralab.model.faster import run_faster
from loralab.model.layer_samples import LayerSample
from loralab.model.load import skeleton
from loralab.model.lora import attach_adapter, trainable
from loralab.model.memory import HEAD, build_shadow, estimate_memory, trace_step
from loralab.model.memory_map import MemoryMap
from loralab.model.memory_request import LOADING, PARTS, MemoryEstimate, MemoryRequest
from loralab.model.memory_static import host_bytes
from loralab.model.tracing import StorageLog, peaks
from loralab.modules.sft import token_losses
from loralab.optim.master import MasterWeights
from loralab.optim.state_size import OPTIMIZER_BYTES

TINY = LlamaConfig(
    vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, tie_word_embeddings=False,
)  # fmt: skip
"""A layer: q and o 64 x 64, k and v 32 x 64, gate, up and down 128 x 64: 36,864 weights, 512 outputs."""
LINEAR, LAYERS, MODULES = 36_864, 2, 7
REQUEST = MemoryRequest(
    QuantConfig("none"), LoraConfig(r=4, targets="all_linear"), torch.bfloat16, rows=2, width=32,
    num_supervised=20, checkpointing=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> PreTrainedModel:
    return skeleton(ModelConfig(), TINY)


def parts_of(model: PreTrainedModel, device_type: str = "cpu", **changes: object) -> dict[str, int]:
    return estimate_memory(model, replace(REQUEST, **changes), device_type).parts


@pytest.mark.parametrize(
    ("quant", "each_layer"),
    [
        # Half a byte each, a byte for each block of 64, and for each module one block of blocks, its mean,
        # its 256 values and the 16 values of four bits.
        (QuantConfig("nf4", True), LINEAR // 2 + LINEAR // 64 + MODULES * (4 + 4 + 1024 + 64)),
        (QuantConfig("fp4", False), LINEAR // 2 + 4 * LINEAR // 64 + MODULES * 64),
        (QuantConfig("int8"), LINEAR + 4 * 512),
    ],
    ids=["nf4", "fp4", "int8"],
)
def test_quantized_weights_take_what_bitsandbytes_stores(tiny, quant, each_layer):
    assert parts_of(tiny, quant=quant)["quantized weights"] == LAYERS * each_layer


def test_nf4_takes_4_127_bits_for_each_weight_of_a_large_layer():
    wide = LlamaConfig(
        **{**TINY.to_dict(), "hidden_size": 4096, "intermediate_size": 4096, "num_hidden_layers": 1}
    )
    model = skeleton(ModelConfig(), wide)
    num_linear = sum(p.numel() for name, p in model.named_parameters() if "proj" in name)
    stored = parts_of(model, quant=QuantConfig("nf4"), rows=1)["quantized weights"]
    assert 8 * stored / num_linear == pytest.approx(4.127, abs=2e-3)


def test_what_is_not_quantized_takes_the_compute_dtype(tiny):
    others = 2 * 100 * 64 + 5 * 64  # embedding, head, five norms
    buffers = sum(buffer.numel() for buffer in tiny.buffers())
    assert parts_of(tiny, quant=QuantConfig("nf4"))["unquantized weights"] == 2 * (others + buffers)
    whole = 2 * (others + LAYERS * LINEAR + buffers)
    assert parts_of(tiny)["unquantized weights"] == whole
    skipping = QuantConfig("nf4", skip_modules=["down_proj"])
    more = parts_of(tiny, quant=skipping)["unquantized weights"]
    assert more == 2 * (others + LAYERS * 128 * 64 + buffers)


def test_an_adapter_takes_a_narrow_copy_a_master_and_two_moments(tiny):
    # r x (inputs + outputs): q and o 128, k and v 96, the others 192.
    num_adapter = LAYERS * 4 * (2 * 128 + 2 * 96 + 3 * 192)
    parts = parts_of(tiny)
    assert parts["adapters"] == num_adapter * (2 + 4)
    assert parts["optimizer"] == num_adapter * 8
    assert estimate_memory(tiny, REQUEST, "cpu").num_trainable == num_adapter


@pytest.mark.parametrize("checkpointing", [False, True, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_estimate_is_what_a_real_step_takes(tiny, dtype, checkpointing):
    real = LlamaForCausalLM(TINY).to(dtype)
    recompute_layers(real, checkpointing)
    model = attach_adapter(real, REQUEST.lora, seed=0).train()
    run_faster(model, REQUEST.speed)
    masters = MasterWeights(trainable(model), dtype)
    ids = torch.randint(0, 100, (2, 32))
    labels = torch.full_like(ids, -100)
    labels[:, -10:] = 1
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    with StorageLog() as log:
        losses = token_losses(model, MicroBatch(ids, mask, labels)).losses
        losses.sum().backward()
        losses = None
    assert masters.parameters()[0].grad is not None
    taken = max(parts.total() for parts in peaks(log.events, lambda number: "all").values())
    estimated = parts_of(tiny, dtype=dtype, checkpointing=checkpointing)
    moving = sum(estimated[part] for part in ("gradients", "activations", "logits", "workspace"))
    assert moving == pytest.approx(taken, rel=0.02)


@pytest.mark.parametrize("rows", [{"lengths": (20, 12, 24, 8)}, {"documents": (20, 12, 24, 8), "rows": 1}])
def test_a_beginning_that_all_share_is_kept_once(tiny, rows, monkeypatch):
    """Four rows of which 8 tokens are shared are 40 tokens: filled up to 48, where they were 64."""
    # So small a model would take the most in its attention or its head; so both take it after the head.
    monkeypatch.setattr(block_attention, "STEP_TOKENS", 4)
    width = 64 if "documents" in rows else 24
    request = replace(REQUEST, **{"rows": 4, "width": width, "num_supervised": 16, **rows})
    whole, short = (
        estimate_memory(tiny, replace(request, shared_prefix=shared), "cpu").parts["activations"]
        for shared in (0, 8)
    )
    assert short == pytest.approx(whole * 48 / 64, rel=0.01)


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
@pytest.mark.parametrize("changes", [{"rows": 4}, {"width": 64}, {"lora": LoraConfig(r=8)}], ids=str)
def test_more_at_once_takes_more(tiny, changes, device_type):
    before = estimate_memory(tiny, REQUEST, device_type).peak
    assert estimate_memory(tiny, replace(REQUEST, **changes), device_type).peak > before


@pytest.mark.parametrize("quant", ["none", "nf4", "int8"])
def test_checkpointing_keeps_fewer_activations(tiny, quant):
    kept = parts_of(tiny, quant=QuantConfig(quant))["activations"]
    assert parts_of(tiny, quant=QuantConfig(quant), checkpointing=True)["activations"] < kept / 2


def test_every_second_layer_keeps_about_half(tiny):
    model = skeleton(ModelConfig(), LlamaConfig(**{**TINY.to_dict(), "num_hidden_layers": 8}))
    none, some, full = (parts_of(model, checkpointing=every)["activations"] for every in (False, 2, True))
    # A layer more or less is whole at the peak.
    assert some == pytest.approx((none + full) / 2, abs=(none - full) / 8)


def test_muon_counts_what_it_leaves_to_adamw(tiny):
    lora = LoraConfig(r=4, modules_to_save=["lm_head"])
    low_rank, head = parts_of(tiny, optimizer="muon")["optimizer"], 100 * 64
    assert parts_of(tiny, optimizer="muon", lora=lora)["optimizer"] == low_rank + 8 * head


def test_eager_attention_keeps_its_scores(tiny):
    eager = copy.deepcopy(tiny)
    eager.set_attn_implementation("eager")
    kept, fused = parts_of(eager, width=256)["activations"], parts_of(tiny, width=256)["activations"]
    scores = LAYERS * 2 * 2 * 256 * 256 * 2  # layers, rows, heads, in two bytes
    assert kept - fused > scores


def test_packed_rows_need_no_mask_and_take_less_than_padded_ones(tiny):
    packed = parts_of(tiny, width=256, documents=(100, 156, 200, 56))["activations"]
    assert packed < parts_of(tiny, width=256)["activations"]


def test_later_micro_batches_find_all_gradients_in_place(tiny):
    num_adapter = estimate_memory(tiny, REQUEST, "cpu").num_trainable
    assert parts_of(tiny)["gradients"] < 4 * num_adapter
    assert parts_of(tiny, accumulation=2)["gradients"] == 4 * num_adapter


def test_logits_grow_with_the_chunk_and_no_further():
    model = skeleton(ModelConfig(), LlamaConfig(**{**TINY.to_dict(), "vocab_size": 4000}))
    few, many = (parts_of(model, num_supervised=number)["logits"] for number in (20, 40))
    assert many - few >= 2 * 20 * 4000 * 4  # at least the log likelihoods and their gradient
    large = {"rows": 8, "width": 512}
    chunked = [parts_of(model, num_supervised=number, **large)["logits"] for number in (1024, 2048)]
    assert chunked[1] - chunked[0] < 512 * 4000 * 4


@pytest.mark.parametrize("checkpointing", [False, True, 2])
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**{**TINY.to_dict(), "num_hidden_layers": 6}),
        Gemma2Config(
            vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=12,
            num_attention_heads=2, num_key_value_heads=1, head_dim=32, sliding_window=16,
        ),
    ],
    ids=["llama", "gemma2"],
)  # fmt: skip
@pytest.mark.parametrize("offload", [False, True])
def test_a_few_layers_tell_as_much_as_all(config, checkpointing, offload, monkeypatch):
    model = skeleton(ModelConfig(), config)
    few = parts_of(model, checkpointing=checkpointing, offload=offload)
    monkeypatch.setattr(memory, "sample_layers", lambda kinds: [LayerSample(tuple(range(len(kinds))), 0)])
    assert few == parts_of(model, checkpointing=checkpointing, offload=offload)


def test_a_model_of_70b_is_answered_without_weights():
    config = LlamaConfig(
        vocab_size=128_256, hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80,
        num_attention_heads=64, num_key_value_heads=8,
    )  # fmt: skip
    model = skeleton(ModelConfig(), config)
    request = replace(REQUEST, quant=QuantConfig("nf4"), lora=LoraConfig(targets=["q_proj", "v_proj"]))
    estimate = estimate_memory(model, request, "cuda")
    # A layer: q and o 8192^2, k and v 8192 x 1024, gate, up and down 8192 x 28672: 855,638,016 weights.
    assert estimate.parts["quantized weights"] == pytest.approx(80 * 855_638_016 * 4.127 / 8, rel=1e-3)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_models_without_linear_layers_of_that_name_work_too():
    config = GPT2Config(vocab_size=100, n_positions=64, n_embd=64, n_layer=3, n_head=2)
    model = skeleton(ModelConfig(), config)
    parts = parts_of(model, quant=QuantConfig("nf4"))
    assert tuple(parts) == PARTS
    assert parts["quantized weights"] > 3 * 12 * 64 * 64 // 2
    assert parts["activations"] > 0


def test_a_target_that_the_model_does_not_have_is_refused(tiny):
    with pytest.raises(ConfigError, match="q_prj"):
        estimate_memory(tiny, replace(REQUEST, lora=LoraConfig(targets=["q_prj"])), "cpu")


def test_the_model_is_left_as_it_was(tiny):
    before = [(name, parameter.shape) for name, parameter in tiny.named_parameters()]
    estimate_memory(tiny, replace(REQUEST, quant=QuantConfig("nf4")), "cpu")
    assert [(name, parameter.shape) for name, parameter in tiny.named_parameters()] == before


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("adamw", 8 * 8192), ("adamw_8bit", 2 * 8192 + 2 * 4 * 32), ("adafactor", 4 * (64 + 128)),
        ("lion", 4 * 8192), ("sgd", 0), ("sgd_momentum", 4 * 8192),
    ],
)  # fmt: skip
def test_the_state_of_an_optimizer_is_as_by_hand(optimizer, expected):
    assert OPTIMIZER_BYTES[optimizer](torch.Size((64, 128))) == expected


def test_each_of_two_processes_holds_half_of_the_layers_and_two_whole_ones(tiny):
    # Weights and two norms of 64 in two bytes each.
    layer = 2 * (LINEAR + 2 * 64)
    whole, split = parts_of(tiny), parts_of(tiny, shards=2)
    assert whole["unquantized weights"] - split["unquantized weights"] == LAYERS * layer // 2
    assert split["workspace"] - whole["workspace"] == 2 * layer
    same = set(PARTS) - {"unquantized weights", "workspace"}
    assert {part: whole[part] for part in same} == {part: split[part] for part in same}


def test_a_base_that_is_split_later_is_whole_while_it_loads(tiny):
    # Forty layers, of which each of a hundred processes holds next to nothing once they are split.
    config = copy.deepcopy(TINY)
    config.num_hidden_layers = 40
    deep = skeleton(ModelConfig(), config)
    short = {"rows": 1, "width": 4, "num_supervised": 1}
    whole, split = (parts_of(deep, "cuda", **short, shards=shards) for shards in (1, 100))
    assert split[LOADING] > 0
    assert sum(split.values()) == whole["unquantized weights"] + whole["adapters"]
    assert sum(MemoryEstimate(split).of_step.values()) == sum(split.values()) - split[LOADING]
    # Of two layers a step takes more than the base.
    assert whole[LOADING] == parts_of(tiny, "cuda", **short, shards=100)[LOADING] == 0
    mapped = MemoryMap(deep, replace(REQUEST, **short, shards=100), "cuda")
    assert mapped.estimate(mapped.request).parts == split


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_the_allocator_keeps_depends_on_which_one_it_is(tiny, checkpointing, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "")
    gaps = parts_of(tiny, checkpointing=checkpointing)
    of_step = sum(gaps[part] for part in ("gradients", "activations", "logits", "workspace"))
    assert gaps["allocator"] == pytest.approx(32 * 2**20 + 0.4 * of_step, abs=1)  # bfloat16: code of kernels
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    assert parts_of(tiny, checkpointing=checkpointing) == {**gaps, "allocator": (32 + 72) * 2**20}
    full = parts_of(tiny, checkpointing=checkpointing, dtype=torch.float32)
    assert full["allocator"] == 72 * 2**20
    assert parts_of(tiny, "cuda", checkpointing=checkpointing)["allocator"] == 0


@pytest.mark.parametrize(("checkpointing", "kept"), [(True, 8), (2, 4)])
@pytest.mark.parametrize("documents", [None, (20, 12, 32)], ids=["padded", "packed"])
def test_offloading_takes_the_bytes_of_every_input_that_moves(checkpointing, kept, documents):
    model = skeleton(ModelConfig(), LlamaConfig(**{**TINY.to_dict(), "num_hidden_layers": 8}))
    request = replace(REQUEST, checkpointing=checkpointing, documents=documents)
    moved = replace(request, offload=True)
    here, away = (trace_step(build_shadow(model, each), each, "cuda") for each in (request, moved))
    one = 2 * 32 * 64 * 2  # rows, tokens, numbers, in two bytes
    assert host_bytes(model, moved) == kept * one
    assert host_bytes(model, request) == host_bytes(model, replace(moved, checkpointing=False)) == 0
    fallen = {stage: here[stage].total() - away[stage].total() for stage in here}
    # Two stay: the input of the first layer, which the graph begins with, and that of the last one to
    # recompute, which is in use next.
    assert fallen[HEAD] == (kept - 2) * one
    if checkpointing is True:
        # In the last layer its input, which its first norm needs to the end, and that of the layer before are
        # back too; in the first layer the input is there twice, as it was and as it came back.
        assert fallen["backward of the last layer of kind 0"] == (kept - 3) * one
        assert fallen["backward of the first layer of kind 0"] == -one


def test_logits_that_become_their_gradient_take_no_float32(tiny):
    model = skeleton(ModelConfig(), LlamaConfig(**{**TINY.to_dict(), "vocab_size": 4000}))
    request = replace(REQUEST, num_supervised=60, speed=SpeedConfig(liger=False))
    fused = replace(request, speed=SpeedConfig(liger=True))
    plain, in_place = (trace_step(build_shadow(model, each), each, "cuda")[HEAD] for each in (request, fused))
    # Beside the logits in two bytes: a float32 copy and log p.
    assert plain.total() - in_place.total() == pytest.approx(60 * 4000 * (4 + 4), rel=0.01)
    # A CPU has no such kernel.
    assert trace_step(build_shadow(model, fused), fused, "cpu")[HEAD] != in_place


def test_a_gpu_computes_more_logits_at_once():
    model = skeleton(ModelConfig(), LlamaConfig(**{**TINY.to_dict(), "vocab_size": 128_256}))
    large = {"rows": 8, "width": 512, "num_supervised": 2048, "speed": SpeedConfig(liger=False)}
    on_cpu, on_gpu = (parts_of(model, device_type, **large)["logits"] for device_type in ("cpu", "cuda"))
    # Of 512 positions in two bytes, a float32 copy and its softmax; of 256 in two bytes, and of eight in
    # float32 those and the gradient of the eight before.
    assert on_gpu == pytest.approx(512 * 128_256 * (2 + 4 + 4), rel=0.01)
    assert on_cpu == pytest.approx((256 * 2 + 8 * (4 + 4 + 4)) * 128_256, rel=0.01)
