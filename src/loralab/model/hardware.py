"""What this machine can do: device and compute dtype."""

import torch

from loralab.errors import ConfigError


def resolve_device(accelerator: str) -> torch.device:
    """Picks the device for `trainer.accelerator`.

    Raises:
        ConfigError: A GPU is asked for where PyTorch finds none.
    """
    has_gpu = torch.cuda.is_available()
    if accelerator == "gpu" and not has_gpu:
        built = "" if torch.version.cuda else " (this PyTorch is built for CPUs only)"
        raise ConfigError(
            f"trainer.accelerator=gpu: no GPU was found{built}. Use trainer.accelerator=cpu or auto."
        )
    return torch.device("cuda" if has_gpu and accelerator != "cpu" else "cpu")


def multiplies_bf16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 run natively; emulated ones are many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Picks the compute dtype for `trainer.precision`: bf16, fp32 or auto."""
    if precision == "auto":
        return torch.bfloat16 if multiplies_bf16(device) else torch.float32
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
