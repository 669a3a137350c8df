"""The parts of a training step, and the names of the ranges that tell them apart in a trace."""

from collections.abc import Mapping
from typing import NamedTuple

DATA, FORWARD, RECOMPUTED, BACKWARD, OPTIMIZER, PROCESSES, REST = STAGES = (
    "data", "forward", "recomputed", "backward", "optimizer", "processes", "rest",
)  # fmt: skip
"""In the order of a step; `recomputed` is the forward pass again under gradient checkpointing."""
EMBEDDING, ATTENTION, ADAPTED, LINEAR, NORM, MLP, LAYERS, HEAD = KINDS = (
    "embedding", "attention", "linear layers with adapter", "linear layers without adapter", "norms",
    "MLP activation", "rest of the layers", "output head and loss",
)  # fmt: skip
"""What a model is made of; a layer inside another one counts for itself alone."""
GATHER, OTHER = "gathering gradients", "between layers"
CLIP, UPDATE, PUBLISH = "clipping and checks", "update", "publishing"
EXCHANGE, CALLBACK, LOOP, WAIT = "exchange", "callbacks and logging", "loop", "GPU waits for the CPU"
STEP, SEPARATOR = "step ", ": "
"""Beginning of the name of a step's range, and what stands after the kind in that of a module."""
EVALUATE, LEAF = "autograd::engine::evaluate_function: ", "AccumulateGrad"
"""How PyTorch calls the backward pass of a node, and the node that adds to a parameter's gradient."""
OF_OPTIMIZER = ("Optimizer.step#", "Optimizer.zero_grad#")
"""How PyTorch calls what its optimizers do."""


class Part(NamedTuple):
    """A part of a step."""

    stage: str
    """One of `STAGES`."""
    name: str
    """What it is within the stage."""


RANGES: dict[str, Part] = {
    FORWARD: Part(FORWARD, HEAD),
    BACKWARD: Part(BACKWARD, OTHER),
    OPTIMIZER: Part(OPTIMIZER, CLIP),
    PUBLISH: Part(OPTIMIZER, PUBLISH),
    EXCHANGE: Part(PROCESSES, EXCHANGE),
}
"""What a range of that name is, where nothing inside it is something else."""


def part_of(name: str, inside: Part | None, number: int | None, made: Mapping[int, str]) -> Part | None:
    """Returns what a range or an operator belongs to; None outside of steps.

    Args:
        name: Its name.
        inside: What it lies in.
        number: Of the node of the autograd graph that it makes or runs, if any.
        made: By their numbers the kinds of modules that made nodes.
    """
    if inside is None:
        return Part(REST, LOOP) if name.startswith(STEP) else None
    if name.startswith(EVALUATE):
        # The head's own gradient is found in the forward pass.
        if inside.stage not in (BACKWARD, RECOMPUTED):
            return inside
        if name.endswith(LEAF):
            return Part(BACKWARD, GATHER)
        return Part(BACKWARD, OTHER if number is None else made.get(number, OTHER))
    if name.startswith(OF_OPTIMIZER):
        return Part(OPTIMIZER, UPDATE)
    return _range_part(name, inside)


def _range_part(name: str, inside: Part) -> Part:
    kind, separator, what = name.partition(SEPARATOR)
    if not separator:
        return RANGES.get(name, inside)
    if kind in KINDS and inside.stage in (FORWARD, RECOMPUTED, BACKWARD):
        return Part(FORWARD if inside.stage == FORWARD else RECOMPUTED, kind)
    return {DATA: Part(DATA, what), CALLBACK: Part(REST, CALLBACK)}.get(kind, inside)
