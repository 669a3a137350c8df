"""What a run says about its model before weights load: each choice with its reason."""

import torch
from transformers import PreTrainedConfig

from loralab.config.method_rules import is_padding_free
from loralab.config.model import QuantConfig
from loralab.config.schema import TrainConfig
from loralab.model.architecture import causal_class
from loralab.model.attention_choice import choose_attention, runs_without_padding
from loralab.model.hardware import choose_dtype, dtype_name, multiplies_bf16
from loralab.model.prequantized import left_out, prequantized


def describe_loading(
    config: TrainConfig, model_config: PreTrainedConfig, device: torch.device, dtype: torch.dtype
) -> list[str]:
    """Returns the lines to print: model, dtype, attention, quantization and added tokens, with reasons.

    Args:
        config: The run.
        model_config: The architecture of its model.
        device: Where it runs.
        dtype: What it computes in.

    Raises:
        ConfigError: The attention in the config cannot run here.
    """
    model = config.model
    precision = choose_dtype(config.trainer.precision, device.type, multiplies_bf16(device))
    joined = config.data.packing or (
        is_padding_free(config) and runs_without_padding(model_config, device, dtype)
    )
    attention = choose_attention(model, model_config, device, dtype, joined)
    found = prequantized(model_config)
    source = "the embedded model" if model.path is None else model.path
    stored = (
        left_out(model, config.quant, found) if found else _quantization(config.quant, dtype, device.type)
    )
    revision = f" at {model.revision}" if model.revision is not None else ""
    lines = [
        f"model: {model.name}, {causal_class(model, model_config).__name__} from {source}{revision}",
        f"dtype: {dtype_name(dtype)} on {device.type}: {precision.reason}",
        f"attention: {attention.name}: {attention.reason}",
        f"quantization: {stored}",
    ]
    if model.added_tokens:
        lines.append(
            f"added tokens: {', '.join(dict.fromkeys(model.added_tokens))} (their embedding rows train)"
        )
    return lines


def _quantization(quant: QuantConfig, dtype: torch.dtype, device_type: str) -> str:
    if quant.name == "none":
        return "none, weights are stored in the compute dtype"
    if quant.name == "int8" and device_type == "cpu" and quant.int8_threshold != QuantConfig().int8_threshold:
        return f"int8; a CPU does without quant.int8_threshold={quant.int8_threshold:g}"
    if quant.name not in ("nf4", "fp4"):
        return quant.name
    double = ", constants quantized too" if quant.double_quant else ""
    return f"{quant.name}{double}, multiplied in {quant.compute_dtype or dtype_name(dtype)}"
