"""Storage of the frozen base in 4 or 8 bits with bitsandbytes."""

import difflib
from collections.abc import Iterator

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from loralab.config.model import QuantConfig
from loralab.errors import ConfigError
from loralab.model.int8 import mend_int8

FOUR_BITS = ("nf4", "fp4")
DTYPES = {"uint8": torch.uint8, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHOWN_MATCHES = 3


def quantization_config(
    quant: QuantConfig, dtype: torch.dtype, model: PreTrainedModel | None = None
) -> BitsAndBytesConfig | None:
    """Returns what transformers quantizes with while loading; None for no quantization.

    Sources: QLoRA, arXiv:2305.14314, section 3 (NormalFloat 4 and double quantization); LLM.int8(),
    arXiv:2208.07339.

    Args:
        quant: The scheme.
        dtype: Compute dtype of the run.
        model: The module tree, which may lie on the meta device; needed only for `quant.skip_modules`.

    Raises:
        ConfigError: `quant.skip_modules` names a layer that the model does not have.
    """
    if quant.name == "none":
        return None
    skipped = None
    if quant.skip_modules:
        assert model is not None, "quant.skip_modules is looked up in the module tree"
        # A list of our own replaces the library's, which keeps the output head and tied weights.
        skipped = [*get_keys_to_not_convert(model), *check_skip_modules(model, quant)]
    if quant.name == "int8":
        return BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=quant.int8_threshold, llm_int8_skip_modules=skipped
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant.name,
        bnb_4bit_use_double_quant=quant.double_quant,
        bnb_4bit_compute_dtype=DTYPES[quant.compute_dtype] if quant.compute_dtype else dtype,
        bnb_4bit_quant_storage=DTYPES[quant.storage_dtype],
        llm_int8_skip_modules=skipped,
    )


def check_skip_modules(model: PreTrainedModel, quant: QuantConfig) -> list[str]:
    """Finds the layers that `quant.skip_modules` leaves unquantized: whole names, in the model's order.

    A name stands for each linear layer whose own name, or the name of a module around it, ends with it:
    `down_proj`, `layers.0.mlp.down_proj`, `layers.0.mlp` or `layers.0`.

    Raises:
        ConfigError: A name matches no linear layer; the message lists the closest real ones.
    """
    linear = [name for name, _ in linear_layers(model)]
    chosen: set[str] = set()
    for wanted in quant.skip_modules:
        matches = [name for name in linear if f".{wanted}." in f".{name}."]
        if not matches:
            names = sorted({part for name in linear for part in (name, name.rpartition(".")[2])}, key=len)
            close = difflib.get_close_matches(wanted, names, n=SHOWN_MATCHES, cutoff=0.3)
            listed = ", ".join(close or sorted({name.rpartition(".")[2] for name in linear}))
            raise ConfigError(
                f"quant.skip_modules: {wanted!r} matches no linear layer of this model. Closest: {listed}."
            )
        chosen.update(matches)
    return [name for name in linear if name in chosen]


def linear_layers(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    """Yields the layers that quantization is about, with their names: all linear ones but the output head.

    GPT-2 has its linear layers as `Conv1D`, which quantization turns into linear ones.
    """
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            yield name, module


def keep_cpu_gradients(model: nn.Module) -> None:
    """Mends two habits of bitsandbytes' layers after loading, both of which training would suffer in silence.

    On CPUs with AVX512-BF16 one forward in evaluation mode would repack 4-bit weights in place for a kernel
    that has no backward; from then on no gradient would flow through the frozen base. For 8-bit layers see
    `model.int8`.
    """
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
        elif isinstance(layer, Linear8bitLt):
            mend_int8(layer)
