"""Norms and gated activations in one pass over memory each, by PyTorch's compiler.

The layers around them stay as they are: their products take most of the time, and 4-bit weights, adapters
and recomputation would break a compiled graph of the whole.
"""

import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from types import MethodType

import torch
from torch import Tensor, nn

from loralab.errors import ConfigError
from loralab.model.elementwise import feed_forward, is_gated

COMPILER = "g++"
"""What PyTorch's compiler runs on a CPU where `CXX` names no other."""


def compile_elementwise(model: nn.Module) -> int:
    """Compiles forward and backward of norms and gates, for any shape; returns of how many modules.

    One function serves all modules of a class: a model of any depth compiles as fast.

    Args:
        model: Its RMS norms (arXiv:1910.07467) and gated feed-forward layers are changed in place.

    Raises:
        ConfigError: It has neither.
    """
    product, compiled = torch.compile(_gate, dynamic=True), dict[type, Callable[..., Tensor]]()
    acts: dict[type, nn.Module] = {}
    num_changed = 0
    for module in model.modules():
        kind = type(module)
        if kind.__name__.endswith("RMSNorm"):
            if kind not in compiled:
                compiled[kind] = torch.compile(kind.forward, dynamic=True)
            module.forward = MethodType(compiled[kind], module)
        elif is_gated(kind):
            # The compiler would tell the modules apart, which hold no values and are all alike.
            act = acts.setdefault(type(module.act_fn), module.act_fn)  # type: ignore[arg-type]
            module.forward = MethodType(feed_forward(partial(product, act)), module)
        else:
            continue
        num_changed += 1
    if not num_changed:
        raise ConfigError(
            f"trainer.speed.compile=true finds no norm and no gate that it knows in {type(model).__name__}. "
            "Set it to false."
        )
    return num_changed


def check_compiler(device: torch.device) -> None:
    """Refuses to compile where there is nothing to compile with.

    Raises:
        ConfigError: There is no C++ compiler, or on a GPU no Triton.
    """
    if device.type == "cuda":
        missing = None if find_spec("triton") else "the package triton: pip install triton"
    else:
        found = shutil.which(os.environ.get("CXX", COMPILER))
        missing = None if found else f"a C++ compiler: install {COMPILER}, or name another one in CXX"
    if missing is not None:
        raise ConfigError(f"trainer.speed.compile=true needs {missing}; or set it to false.")


def _gate(act: nn.Module, gate: Tensor, up: Tensor) -> Tensor:
    product: Tensor = act(gate) * up
    return product
