"""Bases whose weights are quantized already: what they are, and whether an adapter can train on them."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from loralab.config.model import ModelConfig, QuantConfig
from loralab.errors import ModelError
from loralab.model.hardware import dtype_name


@dataclass(frozen=True)
class Method:
    """A way of quantizing that PEFT has adapter layers for."""

    title: str
    """As its authors write it."""
    packages: tuple[tuple[str, str], ...]
    """Modules that loading imports, each with what pip calls it."""


@dataclass(frozen=True)
class Prequantized:
    """How the weights of a base are stored already."""

    method: str
    """`quant_method` of the model's config."""
    label: str
    """In words: `bitsandbytes nf4`, `GPTQ 4-bit`."""
    scheme: str
    """nf4, fp4 or int8 where bitsandbytes stored them, else the method."""


OPTIMUM = ("optimum", "optimum")
GPTQMODEL = ("gptqmodel", "gptqmodel")
TRAINABLE = {
    "bitsandbytes": Method("bitsandbytes", (("bitsandbytes", "bitsandbytes"),)),
    "gptq": Method("GPTQ", (GPTQMODEL, OPTIMUM)),
    "awq": Method("AWQ", (GPTQMODEL, OPTIMUM)),
    "aqlm": Method("AQLM", (("aqlm", "aqlm[gpu,cpu]"),)),
    "eetq": Method("EETQ", (("eetq", "eetq"), ("kernels", "kernels"))),
    "hqq": Method("HQQ", (("hqq", "hqq"),)),
    "torchao": Method("torchao", (("torchao", "torchao"),)),
}
"""Methods with a dispatcher in `peft.tuners.lora`."""


def prequantized(model_config: PreTrainedConfig) -> Prequantized | None:
    """Recognises a base that is quantized already; None for ordinary weights."""
    stored = _stored_config(model_config)
    if not stored:
        return None
    method = stored.get("quant_method", "bitsandbytes")
    # A loaded model has a member of an enumeration there, a file its value.
    method = str(getattr(method, "value", method))
    if method == "bitsandbytes":
        scheme = str(stored.get("bnb_4bit_quant_type", "fp4")) if stored.get("load_in_4bit") else "int8"
        return Prequantized(method, f"bitsandbytes {scheme}", scheme)
    title = TRAINABLE[method].title if method in TRAINABLE else method
    bits = stored.get("bits", stored.get("w_bit"))
    return Prequantized(method, f"{title} {bits}-bit" if bits is not None else title, method)


def trainable_prequantized(config: ModelConfig, model_config: PreTrainedConfig) -> Prequantized | None:
    """Recognises a base that is quantized already, and refuses it where no adapter can train on it here.

    Raises:
        ModelError: As of `check_prequantized`.
    """
    found = prequantized(model_config)
    if found is not None:
        check_prequantized(config, found)
    return found


def is_unmeasured(model_config: PreTrainedConfig) -> bool:
    """Whether another library than bitsandbytes stores the layers, whose bytes are then not known."""
    found = prequantized(model_config)
    return found is not None and found.method != "bitsandbytes"


def check_prequantized(config: ModelConfig, found: Prequantized) -> None:
    """Refuses a quantized base that no adapter can train on, or whose library is missing.

    Raises:
        ModelError: Either; the message says which package to install or which model to take.
    """
    if found.method not in TRAINABLE:
        raise ModelError(
            f"model={config.name} is already quantized ({found.label}), and PEFT has no adapter layers "
            f"for that. Adapters train on {', '.join(TRAINABLE)}: take one of these, or the unquantized "
            "model with quant=nf4."
        )
    missing = [
        pip_name
        for module, pip_name in TRAINABLE[found.method].packages
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ModelError(
            f"model={config.name} is already quantized ({found.label}), which needs a package that is not "
            f"installed. Run `pip install {' '.join(missing)}`."
        )


def left_out(config: ModelConfig, quant: QuantConfig, found: Prequantized) -> str:
    """Says that the base is not quantized a second time."""
    told = "loaded as it is" if quant.name == "none" else f"quant={quant.name} is left out"
    if quant.skip_modules:
        told += f", and quant.skip_modules=[{','.join(quant.skip_modules)}] with it"
    if found.method != "bitsandbytes":
        told += "; the bytes of its layers are not reported"
    return f"{config.name} is already quantized ({found.label}): {told}"


def set_compute_dtype(model_config: PreTrainedConfig, found: Prequantized, dtype: torch.dtype) -> None:
    """Lets 4-bit weights of bitsandbytes multiply in the run's dtype, not the one they were saved with."""
    if found.method == "bitsandbytes" and found.scheme != "int8":
        compute = {"bnb_4bit_compute_dtype": dtype_name(dtype)}
        model_config.quantization_config = _stored_config(model_config) | compute


def check_stored(config: ModelConfig, found: Prequantized, model: PreTrainedModel) -> None:
    """Refuses a base with ordinary weights whose config says that bitsandbytes has quantized it.

    Raises:
        ModelError: They are; the message says what to take out.
    """
    for layer in model.modules():
        weight: Any = getattr(layer, "weight", None)
        bare_four = isinstance(layer, Linear4bit) and getattr(weight, "quant_state", None) is None
        if bare_four or (isinstance(layer, Linear8bitLt) and weight.dtype != torch.int8):
            raise ModelError(
                f"config.json of model={config.name} says that its weights are quantized ({found.label}), "
                "and they are not. Take quantization_config out of it; quant=nf4 quantizes them."
            )


def cast_unquantized(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Brings what bitsandbytes left unquantized to the run's dtype; transformers leaves it as it was saved.

    Args:
        model: A base that was saved quantized by bitsandbytes.
        dtype: Compute dtype of the run.
    """
    kept = tuple(model._keep_in_fp32_modules or ())
    for name, parameter in model.named_parameters():
        # Quantized weights are of classes of their own.
        if type(parameter) is nn.Parameter and not any(part in name for part in kept):
            parameter.data = parameter.data.to(dtype)


def _stored_config(model_config: PreTrainedConfig) -> dict[str, Any]:
    stored = getattr(model_config, "quantization_config", None)
    if stored is None:
        return {}
    return dict(stored if isinstance(stored, dict) else stored.to_dict())
