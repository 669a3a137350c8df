"""The model of a run without its values: the layers that would run, on tensors that hold nothing."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from bitsandbytes.functional import QuantState
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import PreTrainedModel
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.quantizers.base import get_keys_to_not_convert

from loralab.config.model import QuantConfig
from loralab.model.offloading import Copy
from loralab.model.quantize import keep_cpu_gradients, quantization_config
from loralab.model.tracing import HiddenBytes

BLOCK, SUPERBLOCK = 64, 256
"""Weights that share a constant, and constants that share a second one (arXiv:2305.14314, section 3)."""
CODE_SIZE, SUPERCODE_SIZE = 16, 256
"""Values that four bits, and the bytes of a quantized constant, can stand for."""
MOST_FLASH_DIM = 256
"""Largest head that FlashAttention takes."""


def quantize_shadow(model: PreTrainedModel, quant: QuantConfig, dtype: torch.dtype) -> None:
    """Puts the quantized layers in place that loading would put there, on the meta device.

    Args:
        model: A model on the meta device; changed in place.
        quant: Which layers, and how.
        dtype: Compute dtype of the run.

    Raises:
        ConfigError: `quant.skip_modules` names a layer that the model does not have.
    """
    config = quantization_config(quant, dtype, model)
    if config is None:
        return
    skipped = config.llm_int8_skip_modules or get_keys_to_not_convert(model)
    replace_with_bnb_linear(model, skipped, config)
    keep_cpu_gradients(model)
    # PEFT asks for these; loading sets them.
    loaded: Any = model
    loaded.is_loaded_in_4bit, loaded.is_loaded_in_8bit = config.load_in_4bit, config.load_in_8bit


def stored_bytes(layer: Linear4bit | Linear8bitLt) -> int:
    """Returns the bytes of a quantized layer's weight with the constants that restore it.

    In NF4 with double quantization about 4 + 8 / 64 + 32 / (64 x 256) = 4.127 bits for each number
    (arXiv:2305.14314, section 3); in int8 one byte, and a float32 for each output (arXiv:2208.07339).
    """
    num_values = layer.in_features * layer.out_features
    if isinstance(layer, Linear8bitLt):
        return num_values + 4 * layer.out_features
    blocks = -(-num_values // BLOCK)
    constants, weight = 4 * blocks, cast(Any, layer.weight)
    if weight.compress_statistics:
        constants = blocks + 4 * -(-blocks // SUPERBLOCK) + 4 * SUPERCODE_SIZE + 4
    return -(-num_values // 2) + constants + 4 * CODE_SIZE


def fill_with_fakes(model: nn.Module, dtype: torch.dtype) -> None:
    """Replaces tensors on the meta device by fake ones on the CPU; call it inside `FakeTensorMode`.

    Args:
        model: Changed in place; tensors that are fake already stay.
        dtype: Dtype that weights were quantized from.
    """
    replaced: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, Linear4bit) and not isinstance(module.weight, FakeTensor):
            module._parameters["weight"] = _four_bit_weight(module, dtype)
        elif isinstance(module, Linear8bitLt) and not isinstance(module.weight, FakeTensor):
            module._parameters["weight"] = _int8_weight(module)
        for name, parameter in module._parameters.items():
            if parameter is not None and not isinstance(parameter, FakeTensor):
                if id(parameter) not in replaced:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                    replaced[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = replaced[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None and not isinstance(buffer, FakeTensor):
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


@contextmanager
def gpu_kernels() -> Iterator[None]:
    """Lets attention take and save memory as the kernels of an NVIDIA GPU do.

    FlashAttention-2 (arXiv:2307.08691) where nothing is masked but the future, else the memory-efficient
    kernel (arXiv:2112.05682): both save the output and a float32 number for each query and head.
    """
    # A function mode would be suspended in the backward pass, and with it in recomputation.
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _gpu_attention  # type: ignore[assignment]  # the names that models use
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


class ShadowLink:
    """Offloading as the device sees it: what leaves takes nothing, what comes back takes memory."""

    def takes(self, tensor: Tensor) -> bool:
        """Whether it would be on the device: all are."""
        return True

    def to_host(self, tensor: Tensor) -> Copy:
        """Remembers the shape alone."""
        return Copy((tensor.shape, tensor.dtype), None)

    def to_device(self, host: Any, device: torch.device) -> Copy:
        """Makes a tensor of the shape."""
        shape, dtype = host
        return Copy(torch.empty(shape, dtype=dtype), None)

    def wait(self, done: Any) -> None:
        """Has nothing to wait for."""


def shadow_nll(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Takes the memory of `losses.liger.nll_in_place`."""
    return torch.empty(len(targets), dtype=torch.float32), logits


def _gpu_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    **named: Any,
) -> Tensor:
    causal, dropout, scale = (named.get(name) for name in ("is_causal", "dropout_p", "scale"))
    half = query.dtype in (torch.float16, torch.bfloat16)
    if attn_mask is None and half and query.shape[-1] == value.shape[-1] <= MOST_FLASH_DIM:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return cast(Tensor, flash(query, key, value, dropout or 0.0, bool(causal), scale=scale)[0])
    if named.get("enable_gqa"):
        groups = query.shape[1] // key.shape[1]
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    outputs = efficient(query, key, value, attn_mask, True, dropout or 0.0, bool(causal), scale=scale)
    return cast(Tensor, outputs[0])


def _four_bit_weight(layer: Linear4bit, dtype: torch.dtype) -> nn.Parameter:
    shape = torch.Size((layer.out_features, layer.in_features))
    blocks, given = -(-shape.numel() // BLOCK), cast(Any, layer.weight)
    state: dict[str, Any] = {"absmax": torch.empty(blocks)}
    if given.compress_statistics:
        code, absmax = torch.empty(SUPERCODE_SIZE), torch.empty(-(-blocks // SUPERBLOCK))
        second = QuantState(absmax, code=code, blocksize=SUPERBLOCK, dtype=torch.float32)
        state = {"absmax": torch.empty(blocks, dtype=torch.uint8), "offset": torch.empty(())}
        state["state2"] = second
    state |= {"code": torch.empty(CODE_SIZE), "blocksize": BLOCK, "quant_type": given.quant_type}
    packed = torch.empty((-(-shape.numel() // 2), 1), dtype=torch.uint8)
    weight: Any = nn.Parameter(packed, requires_grad=False)
    weight.quant_state = QuantState(shape=shape, dtype=dtype, **state)
    return cast(nn.Parameter, weight)


def _int8_weight(layer: Linear8bitLt) -> nn.Parameter:
    weight: Any = nn.Parameter(
        torch.empty((layer.out_features, layer.in_features), dtype=torch.int8), requires_grad=False
    )
    weight.CB = weight.SCB = None
    layer.state.CB, layer.state.SCB = weight.data, torch.empty(layer.out_features)
    return cast(nn.Parameter, weight)


def _restored_weight(
    hidden: Tensor, weight: Tensor, shape: Sequence[int], absmax: Tensor, block: int, *_: Any, **__: Any
) -> int:
    """The weight in the compute dtype and, in float32, the constants: what `gemm_4bit` restores first."""
    num_values = math.prod(shape)
    return num_values * hidden.element_size() + 4 * -(-num_values // block)


HIDDEN: dict[Any, HiddenBytes] = {
    torch.ops.bitsandbytes.gemm_4bit.default: _restored_weight,
}
"""What kernels take that shows in no tensor."""
