"""What this machine can do: device, compute dtype and the quantizations that its GPU runs."""

from dataclasses import dataclass

import torch

from loralab.distributed.group import world_size
from loralab.errors import ConfigError

NATIVE_BF16 = (8, 0)
"""First NVIDIA compute capability that multiplies bfloat16 (Ampere)."""
LEAST_CAPABILITY = {"nf4": (6, 0), "fp4": (6, 0), "int8": (7, 5)}
"""What bitsandbytes needs of an NVIDIA GPU, from its installation guide (version 0.50)."""
CAPABILITY_NAMES = {(6, 0): "Pascal, such as P100", (7, 5): "Turing, such as T4"}


@dataclass(frozen=True)
class DtypeChoice:
    """The compute dtype of a run, and why."""

    dtype: torch.dtype
    """What activations, adapters and unquantized weights are computed in."""
    reason: str
    """Why, in words to print."""


def resolve_device(accelerator: str) -> torch.device:
    """Picks the device for `trainer.accelerator`; each of several processes has a GPU of its own.

    Raises:
        ConfigError: A GPU is asked for where PyTorch finds none.
    """
    has_gpu = torch.cuda.is_available()
    if accelerator == "gpu" and not has_gpu:
        built = "" if torch.version.cuda else " (this PyTorch is built for CPUs only)"
        raise ConfigError(
            f"trainer.accelerator=gpu: no GPU was found{built}. Use trainer.accelerator=cpu or auto."
        )
    if not has_gpu or accelerator == "cpu":
        return torch.device("cpu")
    return torch.device("cuda") if world_size() == 1 else torch.device("cuda", torch.cuda.current_device())


def gpu_capability(device: torch.device) -> tuple[int, int] | None:
    """Returns the compute capability of an NVIDIA GPU; None for others, whose limits are not in it."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    return torch.cuda.get_device_capability(device)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 run natively; emulated ones are many times slower."""
    if device.type == "cuda":
        capability = gpu_capability(device)
        return capability is None or capability >= NATIVE_BF16
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Picks the compute dtype for `trainer.precision`: bf16, fp16, fp32 or auto."""
    return choose_dtype(precision, device.type, multiplies_bf16(device)).dtype


def choose_dtype(precision: str, device_type: str, native_bf16: bool) -> DtypeChoice:
    """Picks the compute dtype and says why.

    Args:
        precision: `trainer.precision`.
        device_type: cpu or cuda.
        native_bf16: Whether the device multiplies bfloat16 (`multiplies_bf16`).
    """
    where = "GPU" if device_type == "cuda" else "CPU"
    if precision == "auto":
        if native_bf16:
            return DtypeChoice(torch.bfloat16, f"this {where} multiplies it natively")
        if device_type == "cuda":
            older = "this GPU is older than bfloat16; trainer.precision=fp16 is faster"
            return DtypeChoice(torch.float32, older)
        return DtypeChoice(torch.float32, "this CPU has neither AVX512-BF16 nor AMX")
    slow = not native_bf16 if precision == "bf16" else precision == "fp16" and device_type == "cpu"
    reason = f"trainer.precision={precision}" + (f", which this {where} emulates slowly" if slow else "")
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    return DtypeChoice(dtypes[precision], reason)


def dtype_name(dtype: torch.dtype) -> str:
    """Returns `bfloat16` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def check_quantization(scheme: str, capability: tuple[int, int] | None) -> None:
    """Refuses a quantization that the GPU has no kernels for.

    Args:
        scheme: `quant.name`.
        capability: Of an NVIDIA GPU (`gpu_capability`); None where there is none to ask.

    Raises:
        ConfigError: The GPU is too old.
    """
    least = LEAST_CAPABILITY.get(scheme)
    if least is None or capability is None or capability >= least:
        return
    other = "quant=nf4" if capability >= LEAST_CAPABILITY["nf4"] else "quant=none"
    raise ConfigError(
        f"quant={scheme} needs a GPU of compute capability {least[0]}.{least[1]} or newer "
        f"({CAPABILITY_NAMES[least]}); this one has {capability[0]}.{capability[1]}. "
        f"Use {other} or trainer.accelerator=cpu."
    )
