"""Four-bit storage of the frozen base with bitsandbytes."""

import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import nn
from transformers import BitsAndBytesConfig

from loralab.config.schema import QuantConfig


def quantization_config(quant: QuantConfig, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Returns what transformers quantizes with while loading; None for no quantization.

    Source: QLoRA, arXiv:2305.14314, section 3 (NormalFloat 4 and double quantization).
    """
    if quant.name == "none":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant.name,
        bnb_4bit_use_double_quant=quant.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_cpu_gradients(model: nn.Module) -> None:
    """Stops bitsandbytes from repacking 4-bit weights in place on CPUs with AVX512-BF16.

    One forward in evaluation mode would repack them for a kernel that has no backward; from then on no
    gradient would flow through the frozen base, and nothing would say so.
    """
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
