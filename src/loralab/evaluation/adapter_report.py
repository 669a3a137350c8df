"""What an adapter learned, layer by layer: how large its update is, which rank it uses, what to change."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from loralab.model.module_names import PEFT_PREFIX

FACTORS = {
    ".lora_A.weight": ".lora_B.weight",
    ".lora_embedding_A": ".lora_embedding_B",
    ".lora_A": ".lora_B",
}
"""Ends of PEFT's names of A and of B: of LoRA on linear layers, on embeddings, and of AdaLoRA."""
VALUES_E = ".lora_E"
"""End of the name of AdaLoRA's singular values."""
NUMBERED = re.compile(r"(?:.*\.)?(\w+\.)(\d+)(\..+)")
"""A module inside a numbered layer: `layers.`, its number, and the rest."""
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MARGIN = 1.25
"""Ranks are suggested a quarter above the effective rank."""
FULL_SHARE = 0.9
"""A layer whose effective rank is above this share of its rank may want more than it has."""
ALPHA_DIGITS = 6
"""Significant digits of suggested alphas."""
Setting = TypeVar("Setting", bound=Hashable)
"""What a pattern gives to a layer."""


@dataclass(frozen=True)
class LayerUpdate:
    """The update of one adapted layer."""

    name: str
    """Module name inside the base model."""
    rank: int
    """Configured rank; of AdaLoRA what was left at the end."""
    width: int
    """The smaller side of the layer, above which no rank helps."""
    scale: float
    """What the product of the factors is multiplied by."""
    rslora: bool
    """Whether the scale is alpha / sqrt(rank) instead of alpha / rank."""
    norm: float
    """Frobenius norm of the update, scaling included."""
    effective_rank: float
    """exp of the entropy of the normalised singular values (Roy and Vetterli, 2007): 1 to `highest_rank`."""
    gradient_rms: float | None
    """Root of the mean second moment of the gradient of A, B and E, as Adam keeps it; None where unknown."""
    doubled: bool = False
    """Whether the update counts from a first one (PiSSA, OLoRA, CorDA): B A - B0 A0 has twice the rank."""

    @property
    def highest_rank(self) -> int:
        """The most that the effective rank can be, whatever the layer's width."""
        return 2 * self.rank if self.doubled else self.rank

    @property
    def kind(self) -> str:
        """The projection, such as `q_proj`."""
        return self.name.rpartition(".")[2]


def measure_adapter(
    adapter_dir: Path, rank: int, gradient_rms: Mapping[str, float] | None = None
) -> list[LayerUpdate]:
    """Measures every low-rank update of a saved adapter; empty where it learned none (VeRA, IA3, prompts).

    The update is scale x B A, and of AdaLoRA scale x B diag(E) A (arXiv:2303.10512, equation 3).

    Args:
        adapter_dir: Folder in PEFT's own format.
        rank: Configured rank, where `rank_pattern` says nothing else. A saved adapter may hold more: a
            changed base is written as twice the rank.
        gradient_rms: Gradient scale by module name.
    """
    config = json.loads((adapter_dir / "adapter_config.json").read_text(encoding="utf-8"))
    weights = load_file(adapter_dir / "adapter_model.safetensors")
    # AdaLoRA's own `r` is not used by PEFT.
    doubled = config["peft_type"] == "LORA" and config["r"] == 2 * rank
    updates = []
    for path, factor_a, factor_b in _factors(weights):
        name, held = path.removeprefix(PEFT_PREFIX), len(factor_a)
        scale = _scaling(config, name, held)
        values = singular_values(factor_a, factor_b) * scale
        updates.append(
            LayerUpdate(
                name=name,
                rank=held // 2 if doubled else held,
                width=min(factor_a.shape[1], factor_b.shape[0]),
                scale=scale,
                rslora=bool(config.get("use_rslora")),
                norm=float(values.norm()),
                effective_rank=effective_rank(values),
                gradient_rms=None if gradient_rms is None else gradient_rms.get(name),
                doubled=doubled,
            )
        )
    return sorted(updates, key=lambda update: _by_number(update.name))


def singular_values(factor_a: Tensor, factor_b: Tensor) -> Tensor:
    """Returns the singular values of B A without building it.

    B = Q_b R_b and A^T = Q_a R_a give B A = Q_b (R_b R_a^T) Q_a^T, so they are those of an r x r matrix.

    Args:
        factor_a: [rank, in]
        factor_b: [out, rank]

    Returns:
        At most [rank], from the largest.
    """
    upper_b = torch.linalg.qr(factor_b.double(), mode="r").R
    upper_a = torch.linalg.qr(factor_a.double().T, mode="r").R
    values: Tensor = torch.linalg.svdvals(upper_b @ upper_a.T)
    return values


def effective_rank(values: Tensor) -> float:
    """Returns exp(-sum p log p) with p = values / sum(values); 0 where all values are 0.

    Source: Roy and Vetterli, The effective rank, EUSIPCO 2007, definition 1.

    Args:
        values: [num], singular values.
    """
    total = values.sum()
    if not total > 0:
        return 0.0
    shares = values / total
    return math.exp(float(torch.special.entr(shares).sum()))


def gradient_scales(moments: Mapping[str, Tensor], beta: float, step: int) -> dict[str, float]:
    """Returns the root mean square gradient of each adapted layer from Adam's second moments.

    The moment is corrected for its start at 0 (arXiv:1412.6980, algorithm 1).

    Args:
        moments: `exp_avg_sq` by parameter name.
        beta: Decay rate of the second moment.
        step: Optimizer steps that the moments saw; at least 1.
    """
    sums: dict[str, list[float]] = defaultdict(list)
    for name, moment in moments.items():
        if layer := re.match(rf"{re.escape(PEFT_PREFIX)}(.+)\.lora_(?:embedding_)?[ABE]\b", name):
            sums[layer[1]].append(float(moment.double().mean()) / (1 - beta**step))
    return {layer: math.sqrt(sum(each) / len(each)) for layer, each in sums.items()}


def suggest_ranks(updates: Sequence[LayerUpdate]) -> dict[str, int]:
    """Suggests a rank for each layer: the next of the usual ranks above 1.25 times its effective rank.

    A layer that uses more than 90% of its rank gets twice as much; one without an update the smallest. None
    gets more than its width. Where an update has twice the rank, half of what it uses counts: the rank to
    configure for the same `lora.init`.
    """
    suggested = {}
    for update in updates:
        used = update.effective_rank / (2 if update.doubled else 1)
        wanted = 2.0 * update.rank if used > FULL_SHARE * update.rank else used * MARGIN
        usual = next((rank for rank in RANKS if rank >= wanted), RANKS[-1])
        suggested[update.name] = min(usual, update.width)
    return suggested


def to_pattern(suggested: Mapping[str, Setting]) -> tuple[Setting, dict[str, Setting]]:
    """Writes values of layers as the most common one and a pattern of the others.

    Args:
        suggested: Such as ranks, by module name.

    Returns:
        The most common value, such as for `lora.r`, and the others by regular expressions as in
        `lora.rank_pattern`, one for a projection and value.
    """
    common = Counter(suggested.values()).most_common(1)[0][0]
    groups: dict[tuple[str, Setting], list[str]] = defaultdict(list)
    for name, rank in suggested.items():
        if rank != common:
            placed = NUMBERED.match(name)
            groups[f"{placed[1]}%{placed[3]}" if placed else name, rank].append(placed[2] if placed else "")
    pattern = {}
    for (place, rank), numbers in groups.items():
        listed = numbers[0] if len(numbers) == 1 else f"({'|'.join(numbers)})"
        pattern[re.escape(place).replace("%", listed)] = rank
    return common, pattern


def pattern_yaml(updates: Sequence[LayerUpdate]) -> str:
    """Writes suggested ranks as the `lora` group of a config, with alphas that keep each layer's scale."""
    ranks, rslora = suggest_ranks(updates), any(update.rslora for update in updates)
    wanted = {}
    for update in updates:
        rank = ranks[update.name]
        alpha = update.scale * (math.sqrt(rank) if rslora else rank)
        # Without the last digits, in which equal scales of different ranks may differ.
        wanted[update.name] = rank, float(f"{alpha:.{ALPHA_DIGITS}g}")
    (rank, alpha), pattern = to_pattern(wanted)
    group = {
        "r": rank,
        "alpha": alpha,
        **({"rslora": True} if rslora else {}),
        "rank_pattern": {key: rank for key, (rank, _) in pattern.items()},
        "alpha_pattern": {key: alpha for key, (_, alpha) in pattern.items()},
    }
    return yaml.safe_dump({"lora": group}, sort_keys=False)


def group_by_kind(updates: Iterable[LayerUpdate]) -> dict[str, list[LayerUpdate]]:
    """Groups the updates of the same projection in all layers."""
    groups: dict[str, list[LayerUpdate]] = defaultdict(list)
    for update in updates:
        groups[update.kind].append(update)
    return dict(groups)


def _factors(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yields the path of each adapted layer with A [rank, in], E multiplied in, and B [out, rank]."""
    for key, factor_a in weights.items():
        end = next((end for end in FACTORS if key.endswith(end)), None)
        if end is None:
            continue
        path = key.removesuffix(end)
        values = weights.get(path + VALUES_E)
        yield path, factor_a if values is None else factor_a * values, weights[path + FACTORS[end]]


def _scaling(config: Mapping[str, Any], name: str, held: int) -> float:
    if config["peft_type"] == "ADALORA":
        # PEFT divides by the rank that it started with, however much is left, plus a negligible 1e-5.
        return float(config["lora_alpha"] / config["init_r"])
    alpha = float(str(_lookup(config.get("alpha_pattern"), name) or config["lora_alpha"]))
    return alpha / math.sqrt(held) if config.get("use_rslora") else alpha / held


def _lookup(pattern: object, name: str) -> object:
    """Finds the value of a PEFT pattern for a module: its key matches the end of the name."""
    entries = pattern.items() if isinstance(pattern, Mapping) else ()
    return next((value for key, value in entries if re.match(rf"(.*\.)?({key})$", name)), None)


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
