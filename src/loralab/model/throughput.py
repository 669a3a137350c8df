"""The arithmetic that training takes, and how fast this machine does it."""

import time
from collections.abc import Callable

import torch

from loralab.model.size import ModelSize

EFFICIENCY = 0.3
"""Share of the rate of bare matrix products that training is assumed to reach; measured with small batches of
a 135M model on two cores."""
FIRST_ROWS = 16
MOST_WEIGHTS = 2**24
"""Numbers of the layer that is tried; of a larger one a part is taken, which a cache does not hold either."""
TRIES = 8
"""Products that should fit into the time budget, so that no single one overruns it by much."""


def forward_flops(size: ModelSize, tokens: float, width: float, supervised: float) -> float:
    """Returns the operations of a forward pass.

    For each token 2 per parameter of the linear layers and 4 x layers x attention size x width for attention
    (arXiv:2204.02311, appendix B); the head only where a token is learned.

    Args:
        size: The model.
        tokens: Tokens that go through the decoder, padding included.
        width: Tokens of the row that each stands in.
        supervised: Tokens whose logits are computed.
    """
    linear, attention, head = _forward_parts(size, tokens, width, supervised)
    return linear + attention + head


def training_flops(
    size: ModelSize, tokens: float, width: float, supervised: float, checkpointing: bool | int = False
) -> float:
    """Returns the operations of a forward and a backward pass that train an adapter alone.

    The backward pass of a frozen layer needs the gradient of its input but not of its weight, so it costs as
    much as the forward pass; attention has no weights and costs twice as much. The adapter's share is small
    and left out. Gradient checkpointing repeats the forward pass of the layers, or of
    every n-th.
    """
    linear, attention, head = _forward_parts(size, tokens, width, supervised)
    repeated = (linear + attention) / int(checkpointing) if checkpointing else 0.0
    return 2 * linear + 3 * attention + 2 * head + repeated


def _forward_parts(
    size: ModelSize, tokens: float, width: float, supervised: float
) -> tuple[float, float, float]:
    attention = 4 * size.num_layers * size.attention_size * width
    head = 2 * size.hidden_size * size.vocab_size
    return 2 * size.num_linear * tokens, attention * tokens, head * supervised


def matmul_rate(
    shape: tuple[int, int],
    tokens: int,
    placement: tuple[torch.device, torch.dtype],
    budget_s: float = 0.4,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measures how many operations per second matrix products reach here: the best of several tries.

    Args:
        shape: Outputs and inputs of the layer to try.
        tokens: Most rows to multiply at once; fewer where that would take too long.
        placement: Device and dtype of the run.
        budget_s: Seconds after which no new try begins.
        clock: Tells the time in seconds.
    """
    (device, dtype), (outputs, inputs) = placement, shape
    rows, best, begun = min(FIRST_ROWS, tokens), 0.0, clock()
    weight = torch.ones(min(outputs, MOST_WEIGHTS // inputs), inputs, device=device, dtype=dtype)
    while not best or clock() - begun < budget_s:
        hidden = torch.ones(rows, inputs, device=device, dtype=dtype)
        _finish(device)
        started = clock()
        torch.mm(hidden, weight.T)
        _finish(device)
        took = max(clock() - started, 1e-9)
        best = max(best, 2 * rows * weight.numel() / took)
        if took < budget_s / TRIES:
            rows = min(2 * rows, tokens)
    return best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
