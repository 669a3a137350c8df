"""Cross entropy in one kernel that turns logits into their gradient where they stand (arXiv:2410.10989).

The kernel is that of the package liger-kernel; the plain path makes several copies of the logits in float32.
"""

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import torch
from packaging.specifiers import SpecifierSet
from torch import Tensor

from loralab.errors import ConfigError

LARGEST_BLOCK = 2**15
"""Logits that a program of the kernel reads at once, a power of 2; half of what Triton allows."""
WARPS = {True: 8, False: 32}
"""Groups of 32 threads that share a row, on Blackwell and before it, as the package chooses them."""
BLACKWELL = (10, 0)
"""First compute capability of that generation."""


VERSIONS = SpecifierSet(">=0.8.5,<0.9")
"""Of the package: the arguments of its kernel change."""


def is_installed() -> bool:
    """Whether the package is there in a version that is known, and Triton, in which it is written."""
    if find_spec("liger_kernel") is None or find_spec("triton") is None:
        return False
    return version("liger-kernel") in VERSIONS


def runs_liger(setting: bool | str, device_type: str) -> bool:
    """Says whether logits go through the kernel.

    Args:
        setting: `trainer.speed.liger`: auto is wherever it can.
        device_type: cpu or cuda.
    """
    if setting is not True and setting != "auto":
        return False
    return device_type == "cuda" and (setting is True or is_installed())


def check_liger(setting: bool | str) -> None:
    """Refuses to go without the package where it is asked for.

    Raises:
        ConfigError: It is, and is not there.
    """
    if setting is True and not is_installed():
        raise ConfigError(
            f"trainer.speed.liger=true needs the packages liger-kernel ({VERSIONS}) and triton. Install them "
            "with pip install 'loralab[liger]', or use trainer.speed.liger=auto."
        )


def nll_in_place(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the negative log likelihoods of targets and the gradients that the logits become.

    The package's own function keeps losses in the dtype of the logits and waits for the GPU to check the
    targets, so its kernel is called here.

    Args:
        logits: [num, vocab], overwritten.
        targets: [num]

    Returns:
        [num] in float32, and [num, vocab]: the memory of the logits, with p - onehot(target).
    """
    from liger_kernel.ops.cross_entropy import liger_cross_entropy_kernel

    gradient, (num, vocab) = logits.detach(), logits.shape
    losses = torch.empty(num, dtype=torch.float32, device=logits.device)
    if num:
        liger_cross_entropy_kernel[(num,)](
            X_ptr=gradient, X_stride=gradient.stride(0), Y_ptr=targets, Y_stride=targets.stride(0),
            loss_ptr=losses, loss_stride=1, n_cols=vocab,
            BLOCK_SIZE=min(LARGEST_BLOCK, 1 << (vocab - 1).bit_length()),
            num_warps=WARPS[_is_blackwell(logits.device)], **UNUSED,
        )  # fmt: skip
    return losses, gradient


UNUSED: Mapping[str, Any] = MappingProxyType({
    "weight_ptr": None, "z_loss_ptr": None, "token_accuracy_ptr": None, "token_accuracy_stride": 0,
    "predicted_tokens_ptr": None, "predicted_tokens_stride": 0, "n_non_ignore": 1.0,
    "sum_non_ignore_weight": 1.0, "weight_sum": 0.0, "ignore_index": -100,
    "lse_square_scale": 0.0, "label_smoothing": 0.0,
    "reduction": "none", "softcap": None, "RETURN_Z_LOSS": False, "RETURN_TOKEN_ACCURACY": False,
    "RETURN_PREDICTED_TOKENS": False, "HAS_WEIGHT": False, "HAS_SOFTCAPPING": False, "HAS_GRADIENTS": True,
})  # fmt: skip
"""Arguments of the kernel for what is not asked of it."""


def _is_blackwell(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= BLACKWELL
