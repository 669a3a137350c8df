"""The memory that is taken all the time: what is held, by whom."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import PeftModel
from transformers import PreTrainedModel

from loralab.model.layer_samples import decoder_layers
from loralab.model.lora import causal_lm, trainable
from loralab.model.memory_request import (
    ADAPTERS,
    LOADING,
    OPTIMIZER,
    QUANTIZED,
    UNQUANTIZED,
    WORKSPACE,
    MemoryRequest,
)
from loralab.model.shadow import stored_bytes
from loralab.optim.state_size import FLOAT32_BYTES, state_bytes


def static_parts(model: PeftModel, request: MemoryRequest) -> dict[str, int]:
    """Counts what is there all the time: weights, adapters with their masters, and the optimizer's state.

    Args:
        model: The adapted model on the meta device.
        request: Dtype and optimizer.
    """
    layers = [module for module in model.modules() if isinstance(module, Linear4bit | Linear8bitLt)]
    packed = {id(layer.weight) for layer in layers}
    frozen = [
        parameter for parameter in model.parameters()
        if not parameter.requires_grad and id(parameter) not in packed
    ]  # fmt: skip
    trained = trainable(model)
    master_and_copy = FLOAT32_BYTES + request.dtype.itemsize
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    parts = Counter(
        {
            QUANTIZED: sum(stored_bytes(layer) for layer in layers),
            UNQUANTIZED: sum(parameter.numel() for parameter in frozen) * request.dtype.itemsize + buffers,
            ADAPTERS: sum(parameter.numel() for parameter in trained.values()) * master_and_copy,
            OPTIMIZER: sum(
                state_bytes(request.optimizer, name, each.shape) for name, each in trained.items()
            ),
        }
    )
    if request.shards > 1:
        parts.update(saved_by_sharding(model, request))
    return dict(parts)


def host_bytes(model: PreTrainedModel, request: MemoryRequest) -> int:
    """Counts what offloading keeps in host memory: one input for each layer that recomputes.

    PyTorch takes pinned memory in powers of two.

    Args:
        model: The base.
        request: The micro-batch.
    """
    if not (request.offload and request.checkpointing):
        return 0
    text = model.config.get_text_config()
    num_inputs = -(-int(text.num_hidden_layers) // int(request.checkpointing))
    size = request.rows * request.width * int(text.hidden_size) * request.dtype.itemsize
    return num_inputs * (1 << (size - 1).bit_length())


def loaded_bytes(model: PeftModel, request: MemoryRequest) -> int:
    """Counts the whole base with its adapter, which each process holds before it gives most of it up.

    0 where it gives nothing up.
    """
    if request.shards == 1:
        return 0
    parts = static_parts(model, replace(request, shards=1))
    return parts[QUANTIZED] + parts[UNQUANTIZED] + parts[ADAPTERS]


def with_loading(parts: Mapping[str, int], loaded: int) -> dict[str, int]:
    """Adds to the parts of the highest moment of a step what loading takes beyond them."""
    return {**parts, LOADING: parts.get(LOADING, 0) + max(0, loaded - sum(parts.values()))}


def saved_by_sharding(model: PeftModel, request: MemoryRequest) -> dict[str, int]:
    """Counts what a process does not hold of the decoder layers, and those it puts together meanwhile."""
    found = decoder_layers(causal_lm(model))
    kept, whole = 1 / request.shards, []
    saved = Counter({QUANTIZED: 0, UNQUANTIZED: 0})
    for layer in found or ():
        packed = [part for part in layer.modules() if isinstance(part, Linear4bit | Linear8bitLt)]
        ids = {id(part.weight) for part in packed}
        plain = sum(
            each.numel() for each in layer.parameters() if not each.requires_grad and id(each) not in ids
        )
        sizes = {QUANTIZED: sum(map(stored_bytes, packed)), UNQUANTIZED: plain * request.dtype.itemsize}
        whole.append(sum(sizes.values()))
        for part, size in sizes.items():
            saved[part] -= round(size * (1 - kept))
    # The layer that runs, and the next one on its way.
    return {**saved, WORKSPACE: sum(sorted(whole)[-2:])}
