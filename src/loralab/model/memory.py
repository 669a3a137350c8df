"""The peak memory of a training step, part by part, without any weights.

The adapted model runs a forward and a backward pass on tensors without values: the code is that of training,
so what it keeps is what training keeps. Of deep models a few layers run; layers of a kind take the same, so
the rest follows on a straight line.
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from loralab.config.method_rules import VIRTUAL_TOKENS
from loralab.config.model import LoraConfig, QuantConfig
from loralab.data.collate import MicroBatch, without_padding, worth_sharing
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.prompts import cache_shape
from loralab.model.allocation import gap_bytes
from loralab.model.attention import (
    allow_padding_free,
    enable_document_attention,
    keeps_documents_apart,
)
from loralab.model.attention_choice import runs_on_flash
from loralab.model.checkpointing import recompute_layers
from loralab.model.faster import run_faster
from loralab.model.head import hidden_states, target_nll
from loralab.model.layer_samples import (
    decoder_layers,
    extrapolate,
    layer_kinds,
    layer_stages,
    only_layers,
    sample_layers,
)
from loralab.model.lora import attach_adapter, causal_lm, trainable
from loralab.model.memory_request import (
    ACTIVATIONS,
    ADAPTERS,
    GAPS,
    GRADIENTS,
    LOADING,
    LOGITS,
    OPTIMIZER,
    PARTS,
    QUANTIZED,
    UNQUANTIZED,
    WORKSPACE,
    MemoryEstimate,
    MemoryRequest,
)
from loralab.model.memory_shares import largest_share, side_by_side
from loralab.model.memory_static import loaded_bytes, static_parts, with_loading
from loralab.model.shadow import HIDDEN, ShadowLink, fill_with_fakes, gpu_kernels, quantize_shadow, shadow_nll
from loralab.model.tracing import StorageLog, peaks
from loralab.optim.master import MasterWeights
from loralab.optim.state_size import FLOAT32_BYTES, OPTIMIZER_BYTES

MANY_STEPS = 1000
"""Steps of a run that is only estimated: enough for methods that plan over them."""
FORWARD, HEAD, LAST_NORM, UPDATE = "forward", "head", "backward of the last norm", "update"
JOIN = "adding up gradients"


def estimate_memory(model: PreTrainedModel, request: MemoryRequest, device_type: str) -> MemoryEstimate:
    """Estimates the peak of training, libraries left out; on a CPU with the gaps of the allocator.

    Args:
        model: The base without weights, as `load.skeleton` builds it; it stays as it is.
        request: What the run would do.
        device_type: cpu or cuda, whose kernels differ.

    Raises:
        ConfigError: The adapter does not fit the model.
    """
    if request.lora.method in VIRTUAL_TOKENS:
        return _with_virtual_tokens(model, request, device_type)
    if request.lora.dora and request.quant.name != "none":
        return _with_magnitudes(model, request, device_type)
    adapted = build_shadow(model, request, device_type)
    static, loaded = static_parts(adapted, request), loaded_bytes(adapted, request)
    num_trainable = sum(parameter.numel() for parameter in trainable(adapted).values())
    grads = FLOAT32_BYTES * num_trainable
    stages = {**trace_step(adapted, request, device_type), UPDATE: Counter({GRADIENTS: grads})}
    if request.accumulation > 1:
        stages = {name: Counter({**parts, GRADIENTS: grads}) for name, parts in stages.items()}
    highest = max(stages.values(), key=Counter.total)
    parts = {part: static.get(part, 0) + highest[part] for part in PARTS}
    return MemoryEstimate(with_loading(parts, loaded), num_trainable)


def _with_virtual_tokens(model: PreTrainedModel, request: MemoryRequest, device_type: str) -> MemoryEstimate:
    """Estimates methods that learn tokens before the text by IA3 on longer rows.

    IA3 sends gradients through every layer too, and keeps little besides.
    """
    lora = request.lora
    longer = replace(request, lora=LoraConfig(method="ia3"), width=request.width + lora.virtual_tokens)
    estimate = estimate_memory(model, longer, device_type)
    text = model.config.get_text_config()
    hidden = int(text.hidden_size)
    trained = lora.virtual_tokens * hidden
    if lora.method == "prefix":
        shape = cache_shape(model)
        trained = 2 * lora.virtual_tokens * shape.num_layers * shape.num_heads * shape.head_dim
    elif lora.method == "ptuning":
        # Two hidden layers and an output, all as wide as the model (arXiv:2103.10385, section 3.2).
        trained += 3 * (hidden * hidden + hidden)
    own = {
        ADAPTERS: trained * (FLOAT32_BYTES + request.dtype.itemsize),
        GRADIENTS: trained * FLOAT32_BYTES,
        OPTIMIZER: OPTIMIZER_BYTES[request.optimizer](torch.Size((trained, 1))),
    }
    return MemoryEstimate({**estimate.parts, **own}, trained)


def _with_magnitudes(model: PreTrainedModel, request: MemoryRequest, device_type: str) -> MemoryEstimate:
    """Estimates DoRA on a quantized base: attaching reads values of the weights.

    The step is that on unquantized layers, the weights are those of the quantized base.
    """
    plain = estimate_memory(model, replace(request, quant=QuantConfig(name="none")), device_type)
    bare = estimate_memory(model, replace(request, lora=replace(request.lora, dora=False)), device_type)
    stored = {part: bare.parts[part] for part in (QUANTIZED, UNQUANTIZED, LOADING)}
    return replace(plain, parts={**plain.parts, **stored})


def build_shadow(model: PreTrainedModel, request: MemoryRequest, device_type: str = "cpu") -> PeftModel:
    """Copies a model without weights, and quantizes, prepares and adapts the copy as a run would."""
    shadow = copy.deepcopy(model)
    nn.Module.to(shadow, request.dtype)
    if runs_on_flash(shadow):
        # The same kernel, through PyTorch, which needs no further package.
        shadow.set_attn_implementation("sdpa")
    quantize_shadow(shadow, request.quant, request.dtype)
    recompute_layers(shadow, request.checkpointing, ShadowLink() if request.offload else None)
    in_blocks = request.speed.block_attention and device_type == "cpu"
    if request.documents is not None:
        enable_document_attention(shadow, in_blocks)
    elif request.lengths is not None:
        allow_padding_free(shadow, in_blocks)
    # Other beginnings have values to work with, and tokens a tokenizer; these take the same memory.
    lora = replace(request.lora, init="default", trainable_tokens=[], prompt_text=None)
    context = AdapterContext(
        added_token_ids=tuple(range(len(request.lora.trainable_tokens))),
        total_steps=MANY_STEPS,
    )
    with torch.device("meta"):
        adapted = attach_adapter(shadow, lora, 0, context).train()
    run_faster(adapted, request.speed)
    return adapted


def trace_step(model: PeftModel, request: MemoryRequest, device_type: str) -> dict[str, Counter[str]]:
    """Runs a micro-batch without values and finds the most memory of each stage, beside what is static.

    Args:
        model: The adapted model on the meta device; what runs of it is filled with fake tensors.
        request: The micro-batch.
        device_type: Whose kernels run.

    Returns:
        By stage the bytes of gradients, activations, logits and workspace at its highest moment.
    """
    base = causal_lm(model)
    layers = decoder_layers(base)
    request, num_shares = largest_share(request) if keeps_documents_apart(base) else (request, 1)
    with FakeTensorMode(), gpu_kernels() if device_type == "cuda" else nullcontext():
        if layers is None:
            fill_with_fakes(model, request.dtype)
            masters = MasterWeights(trainable(model), request.dtype)
            return run_step(model, masters, request, device_type)
        kinds = layer_kinds(base, layers)
        samples = sample_layers(kinds)
        with only_layers(base, sorted({number for sample in samples for number in sample.layers})):
            fill_with_fakes(model, request.dtype)
            masters = MasterWeights(trainable(model), request.dtype)
        traced = []
        for sample in samples:
            with only_layers(base, list(sample.layers)):
                names = layer_stages(kinds, sample.layers)
                traced.append(run_step(model, masters, request, device_type, names))
    stages = extrapolate(traced, [sample.missing for sample in samples])
    stages = {name: side_by_side(parts, num_shares, request.dtype) for name, parts in stages.items()}
    num_trainable = sum(parameter.numel() for parameter in trainable(model).values())
    num_held = num_shares if num_shares > 1 else 0
    stages[JOIN] = Counter({WORKSPACE: num_held * request.dtype.itemsize * num_trainable})
    if device_type == "cpu":
        for parts in stages.values():
            parts[GAPS] = gap_bytes(parts.total(), request.dtype)
    return stages


def run_step(
    model: PeftModel,
    masters: MasterWeights,
    request: MemoryRequest,
    device_type: str,
    stages: Sequence[str] = (),
) -> dict[str, Counter[str]]:
    """Runs forward and backward once, inside `FakeTensorMode`.

    Args:
        model: Filled with fake tensors.
        masters: Where gradients gather.
        request: The micro-batch.
        device_type: Says how the loss is computed.
        stages: Names of the backward passes of the decoder layers.
    """
    base = causal_lm(model)
    log = StorageLog(HIDDEN)
    layers = decoder_layers(base) if stages else ()
    hooks = [
        layer.register_forward_hook(_announce(log, stage))
        for layer, stage in zip(layers or (), stages, strict=True)
    ]
    for master in masters.parameters():
        master.grad = None
    with log:
        log.stage = FORWARD
        batch = _micro_batch(request)
        hidden = hidden_states(model, without_padding(batch) if keeps_documents_apart(base) else batch)
        log.stage, kept = HEAD, log.alive
        if hidden.requires_grad:  # Not where only the output head trains.
            hidden.register_hook(_entering(log, LAST_NORM))
        loss = _loss(base, hidden, request, device_type)
        del hidden
        loss.backward()
        gathered = [master.grad for master in masters.parameters() if master.grad is not None]
        gradients = {log.number_of(grad) for grad in gathered}
        made_in = {event.storage: event.stage for event in reversed(log.events)}

    def kind_of(storage: int) -> str:
        """Tells which part of the memory a storage belongs to."""
        if storage in gradients:
            return GRADIENTS
        if storage in kept:
            return ACTIVATIONS
        return LOGITS if made_in[storage] == HEAD else WORKSPACE

    for hook in hooks:
        hook.remove()
    return peaks(log.events, kind_of)


def _entering(log: StorageLog, stage: str) -> Callable[[Tensor], None]:
    """Names what runs once the gradient of a tensor has come."""

    def enter(gradient: Tensor) -> None:
        log.stage = stage

    return enter


def _announce(log: StorageLog, stage: str) -> Callable[[nn.Module, Any, Any], None]:
    """Names the backward pass of a layer."""

    def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
        """Watches for the gradient of the layer's output, in the first forward pass only."""
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad and log.stage == FORWARD:
            hidden.register_hook(_entering(log, stage))

    return hook


def _micro_batch(request: MemoryRequest) -> MicroBatch:
    shape = (request.rows, request.width)
    ids, mask, labels = (torch.empty(shape, dtype=torch.long) for _ in range(3))
    if request.documents is None:
        return MicroBatch(ids, mask, labels, lengths=request.lengths, shared_prefix=request.shared_prefix)
    positions = torch.empty(shape, dtype=torch.long)
    bounds = tuple(accumulate(request.documents, initial=0))
    return MicroBatch(
        ids,
        mask,
        labels,
        position_ids=positions,
        bounds=bounds,
        shared_prefix=worth_sharing(request.shared_prefix, request.documents),
    )


def _loss(base: PreTrainedModel, hidden: Tensor, request: MemoryRequest, device_type: str) -> Tensor:
    rows, places, targets = (torch.empty(request.num_supervised, dtype=torch.long) for _ in range(3))
    chosen = hidden[:, :-1][rows, places]
    return target_nll(base, chosen, targets, request.speed, device_type, shadow_nll).sum()
