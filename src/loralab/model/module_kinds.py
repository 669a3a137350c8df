"""What each module of an adapted model is, for a profile of its time."""

import re
from collections.abc import Iterator

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from loralab.model.lora import causal_lm
from loralab.model.module_names import PEFT_PREFIX
from loralab.runs.step_parts import ADAPTED, ATTENTION, EMBEDDING, HEAD, LAYERS, LINEAR, MLP, NORM

BY_CLASS = (
    (re.compile(r"Norm(Gated)?$"), NORM),
    (re.compile(r"RotaryEmbedding$|PositionalEmbedding$"), EMBEDDING),
    (re.compile(r"Attention$"), ATTENTION),
    (re.compile(r"(MLP|Mlp|FFN|FeedForward|MoE|SparseMoeBlock|Experts)$"), MLP),
)
"""How the families of transformers end the names of their classes."""
ACTIVATIONS = ("torch.nn.modules.activation", "transformers.activations")


def module_kinds(model: PeftModel) -> Iterator[tuple[str, nn.Module, str]]:
    """Yields name, module and kind of what a profile tells apart; adapted layers and the head as a whole."""
    base = causal_lm(model)
    known = {id(base.base_model): LAYERS, id(base.get_output_embeddings()): HEAD}
    inside: str | None = None
    for name, module in model.named_modules():
        if inside is not None and name.startswith(inside):
            continue
        kind = known.get(id(module)) or kind_of(module)
        if kind is None:
            continue
        if isinstance(module, BaseTunerLayer) or kind == HEAD:
            inside = f"{name}."
        yield name.removeprefix(PEFT_PREFIX), module, kind


def kind_of(module: nn.Module) -> str | None:
    """Returns the kind of a module by itself; None for those that only hold others."""
    if isinstance(module, BaseTunerLayer):
        return EMBEDDING if isinstance(module.get_base_layer(), nn.Embedding) else ADAPTED
    if isinstance(module, nn.Embedding):
        return EMBEDDING
    if isinstance(module, nn.Linear | Conv1D):
        return LINEAR
    if type(module).__module__ in ACTIVATIONS:
        return MLP
    name = type(module).__name__
    return next((kind for pattern, kind in BY_CLASS if pattern.search(name)), None)
