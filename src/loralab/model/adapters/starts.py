"""First values of low-rank updates that are worked out before an adapter is there, by `lora.init`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from loralab.config.model import LoraConfig
from loralab.model.adapters.calibrated import corda_starts, eva_starts
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.loftq import loftq_starts
from loralab.model.adapters.pairs import Pair, full_weight, split_pair
from loralab.model.adapters.patterns import layer_rank, layer_scale, layer_sides

ORTHOGONAL_SIZE = 0.1
"""Standard deviation of the random factors of an orthogonal start, as PEFT has it."""


def find_starts(
    model: PreTrainedModel, names: list[str], lora: LoraConfig, context: AdapterContext
) -> dict[str, Pair]:
    """Works out the first A and B of each adapted layer, before the adapter is there.

    The result depends on the weights, the seed and the calibration batches alone, so that a resumed run finds
    the same again, up to rounding on another device; checkpoints keep what is subtracted.

    Args:
        model: The base model.
        names: Whole names of the adapted layers.
        lora: `init`, and what gives each layer its rank and scale.
        context: Calibration batches and the place of the full-precision weights.

    Returns:
        Pairs by name; empty where `lora.init` needs no weights.

    Raises:
        ConfigError: What `lora.init` needs is not there.
        ModelError: A layer is quantized and `lora.init` needs its full weights.
    """
    if lora.init == "eva":
        return eva_starts(model, names, lora, context)
    if lora.init == "corda":
        return corda_starts(model, names, lora, context)
    if lora.init == "loftq":
        return loftq_starts(model, names, lora, context)
    if lora.init == "orthogonal":
        return {name: orthogonal_pair(model.get_submodule(name), layer_rank(lora, name)) for name in names}
    if lora.init in FROM_WEIGHT:
        decompose = FROM_WEIGHT[lora.init]
        return {
            name: decompose(
                full_weight(name, model.get_submodule(name)), layer_rank(lora, name), layer_scale(lora, name)
            )
            for name in names
        }
    return {}


def pissa_pair(weight: Tensor, rank: int, scale: float) -> Pair:
    """Splits the largest singular values of a weight evenly (PiSSA, arXiv:2404.02948, equations 2 and 3).

    Args:
        weight: [out, in]
        rank: Singular values to take.
        scale: What the update is multiplied by; scale x B A is the principal part.
    """
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    return split_pair(left[:, :rank], values[:rank] / scale, right[:rank])


def olora_pair(weight: Tensor, rank: int, scale: float) -> Pair:
    """Takes the first columns of Q and rows of R of a weight (OLoRA, arXiv:2406.01775, section 3).

    Args:
        weight: [out, in]
        rank: Columns and rows to take.
        scale: What the update is multiplied by; the paper, like PEFT, does not divide by it.
    """
    orthonormal, triangular = torch.linalg.qr(weight)
    return Pair(triangular[:rank].contiguous(), orthonormal[:, :rank].contiguous())


FROM_WEIGHT: dict[str, Callable[[Tensor, int, float], Pair]] = {"pissa": pissa_pair, "olora": olora_pair}
"""Starts that the weight of a layer decides, by `lora.init`."""


def orthogonal_pair(layer: nn.Module, rank: int) -> Pair:
    """Draws A and B, neither zero, in orthogonal halves of the rank, so that B A is zero.

    Source: PEFT's `orthogonal_init`, after https://datta0.github.io/posts/rethink-lora-init.

    Args:
        layer: A linear layer, quantized or not.
        rank: Even.
    """
    inputs, outputs = layer_sides(layer)
    basis, _ = torch.linalg.qr(torch.randn(rank, rank))
    down = basis[0::2].T @ torch.randn(rank // 2, inputs)
    up = torch.randn(outputs, rank // 2) @ basis[1::2]
    return Pair(ORTHOGONAL_SIZE * down, ORTHOGONAL_SIZE * up)
