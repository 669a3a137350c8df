"""What must hold between the options of LoRA and the rest, as far as it shows without the model."""

from collections.abc import Iterator
from typing import Any

from loralab.config.model import LoraConfig
from loralab.config.schema import TrainConfig

OFFSET_STARTS = ("pissa", "olora", "corda")
"""Values of `lora.init` that take their first update out of the base."""
FOUR_BITS = ("nf4", "fp4")
HIGHEST_RANK = 1024


def lora_faults(config: TrainConfig) -> Iterator[str]:
    """Yields every fault of the `lora` group that no single value shows."""
    lora = config.lora
    yield from _target_faults(lora)
    if lora.method != "lora":
        return  # `method_rules` names what other methods do not read.
    yield from _pattern_faults(lora)
    yield from _start_faults(lora, config.quant.name)


def _target_faults(lora: LoraConfig) -> Iterator[str]:
    if not _is_target(lora.targets):
        yield (
            f"lora.targets={lora.targets} is not allowed. Give auto, attention, mlp, all_linear, names such "
            "as [q_proj,v_proj], or a regular expression over whole module names."
        )
    if lora.layers is not None and not (lora.layers and all(number >= 0 for number in lora.layers)):
        yield f"lora.layers={lora.layers} is not allowed. Give layer numbers from 0 such as [0,1], or null."
    if isinstance(lora.targets, list):
        for name in lora.targets:
            if name in lora.modules_to_save:
                yield f"lora.targets and lora.modules_to_save both name {name}. Leave it out of one of them."


def _pattern_faults(lora: LoraConfig) -> Iterator[str]:
    for key, rank in lora.rank_pattern.items():
        if not 1 <= rank <= HIGHEST_RANK:
            yield f"lora.rank_pattern: {key}={rank} is out of range. Allowed: 1 to {HIGHEST_RANK}."
    for key, alpha in lora.alpha_pattern.items():
        if not alpha > 0:
            yield f"lora.alpha_pattern: {key}={alpha} is out of range. Allowed: above 0."


def _start_faults(lora: LoraConfig, quant: str) -> Iterator[str]:
    if lora.init in OFFSET_STARTS and quant != "none":
        yield (
            f"lora.init={lora.init} takes its first update out of the base and quantizes what is left, which "
            f"nobody can rebuild from the saved adapter and the base. With quant={quant} use lora.init=loftq "
            "or eva, or set quant=none."
        )
    if lora.init == "loftq" and quant not in FOUR_BITS:
        yield (
            f"lora.init=loftq corrects the error of 4 bits, and quant={quant} has none. Use quant=nf4 or "
            "fp4, or another lora.init."
        )
    if lora.dora and lora.init in OFFSET_STARTS:
        yield (
            f"lora.init={lora.init} is saved as a plain adapter of twice the rank, which has no magnitudes "
            "as lora.dora=true learns them. Set lora.dora=false, or use lora.init=eva."
        )
    if lora.dora and lora.init == "loftq":
        yield (
            "lora.dora=true measures the magnitudes of the quantized weights, before lora.init=loftq "
            "corrects them. Set lora.dora=false, or use lora.init=default."
        )
    odd = [rank for rank in (lora.r, *lora.rank_pattern.values()) if rank % 2]
    if lora.init == "orthogonal" and odd:
        yield f"lora.init=orthogonal divides the rank into two halves, and {odd[0]} is odd. Use an even rank."


def _is_target(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)
