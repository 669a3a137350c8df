"""Which layers of a model an adapter goes on."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.module_names import (
    closest,
    ends_with,
    fused_names,
    layer_of,
    shortest_selector,
)

AUTO, ATTENTION, MLP, ALL_LINEAR = "auto", "attention", "mlp", "all_linear"
GROUPS = (AUTO, ATTENTION, MLP, ALL_LINEAR)
"""Values of `lora.targets` that stand for layers by what they do."""
ATTENTION_PART = re.compile(r"attn|attention")
MLP_PART = re.compile(r"mlp|ffn|ff|feed_forward|shared_experts?|fc1|fc2")
"""Parts of module names of feed-forward blocks; OPT has its two layers directly in the decoder layer."""
ROUTER_PART = re.compile(r"gate|router|shared_expert_gate")
"""Parts of module names of what chooses experts."""
OTHER_INPUT_PART = re.compile(r"vision\w*|visual|audio\w*|multi_modal_projector")
"""Parts of module names of encoders of images and sound, which text does not pass."""


@dataclass(frozen=True)
class Targets:
    """The layers that `lora.targets` and `lora.layers` choose in one model."""

    names: list[str]
    """Whole module names, in the order of the module tree."""
    selector: list[str] | str
    """The shortest form that PEFT's `target_modules` takes for exactly these layers."""
    note: str | None = None
    """What `lora.targets` leaves out that its name would cover, and why."""

    @property
    def summary(self) -> str:
        """For people: `q_proj x 30, v_proj x 30`, and the note."""
        counts = Counter(name.rpartition(".")[2] for name in self.names)
        listed = ", ".join(f"{name} x {count}" for name, count in counts.items())
        return listed if self.note is None else f"{listed} ({self.note})"


def resolve_targets(model: PreTrainedModel, lora: LoraConfig) -> list[str]:
    """Returns the whole names of the layers that get an adapter; see `find_targets`."""
    return find_targets(model, lora).names


def is_linear(module: nn.Module) -> bool:
    """Says whether a module is a linear layer, in whatever form: also GPT-2's `Conv1D` and quantized ones."""
    if isinstance(module, nn.Linear | Conv1D):
        return True
    # The layers of GPTQ, AWQ and hqq share no base class, only what they are called on.
    return hasattr(module, "in_features") and hasattr(module, "out_features") and not list(module.children())


def find_targets(model: PreTrainedModel, lora: LoraConfig) -> Targets:
    """Looks `lora.targets` and `lora.layers` up in the module tree, which may lie on the meta device.

    `attention` and `mlp` are the linear layers of these blocks; `auto` is every linear layer inside the
    decoder layers, `all_linear` also those outside. Embeddings, the output head, routers of experts and
    encoders of images are left out unless named. Experts are no linear layers in transformers but fused
    parameters, so in a mixture of experts `auto` means attention and what is dense.

    Raises:
        ConfigError: A name or a layer is not there, the message lists the closest real ones; or PEFT cannot
            adapt what is named.
    """
    every = dict(model.named_modules())
    linear = {name: module for name, module in every.items() if is_linear(module)}
    plain = _plain_linear(model, linear)
    if not plain:
        raise ConfigError(f"{type(model).__name__} has no linear layers that an adapter can be put on.")
    fused = fused_names(model) if lora.method == "lora" else frozenset()
    note = None
    if isinstance(lora.targets, str) and lora.targets in GROUPS:
        chosen = [name for name in plain if _belongs(name, lora.targets)]
        reachable = [name for name in chosen if name.rpartition(".")[2] not in fused]
        if len(reachable) < len(chosen):
            note = _fused_reason(set(chosen) - set(reachable))
        chosen = reachable
        if not chosen:
            raise ConfigError(
                f"lora.targets={lora.targets} matches no layer of {type(model).__name__}"
                f"{': ' + note if note else ''}. Use lora.targets=auto."
            )
    else:
        chosen = _named(model, every, plain, lora.targets)
        if taken := {name for name in chosen if name.rpartition(".")[2] in fused}:
            raise ConfigError(f"lora.targets: {_fused_reason(taken)}. Use lora.targets=auto.")
    chosen = _without_saved(_in_layers(chosen, every, lora), lora.modules_to_save)
    if not chosen:
        raise ConfigError("lora.targets: every layer that it names is in lora.modules_to_save already.")
    return Targets(chosen, shortest_selector(chosen, list(every), whole_names_only=bool(fused)), note)


def _plain_linear(model: PreTrainedModel, linear: dict[str, nn.Module]) -> list[str]:
    """Returns the names of linear layers besides the head, routers and encoders of other inputs."""
    head = model.get_output_embeddings()
    tied = {id(model.get_input_embeddings().weight), id(getattr(head, "weight", None))}
    return [
        name
        for name, module in linear.items()
        if module is not head
        and id(getattr(module, "weight", module)) not in tied
        and not _has_part(name, ROUTER_PART)
        and not _has_part(name, OTHER_INPUT_PART)
    ]


def _belongs(name: str, group: str) -> bool:
    if group == ALL_LINEAR:
        return True
    if layer_of(name) is None:
        return False
    inner = name.split(".")[2:]
    is_attention = any(ATTENTION_PART.search(part) for part in inner)
    if group == ATTENTION:
        return is_attention
    if group == MLP:
        return not is_attention and any(MLP_PART.fullmatch(part) for part in inner)
    return True


def _has_part(name: str, pattern: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(part) for part in name.split("."))


def _named(
    model: PreTrainedModel, every: dict[str, nn.Module], plain: list[str], targets: str | list[str]
) -> list[str]:
    """Finds layers by ends of names, or by a regular expression over whole names.

    An expression reaches the head, embeddings and routers only where it spells out their names.
    """
    candidates = [
        name for name, module in every.items() if is_linear(module) or isinstance(module, nn.Embedding)
    ]
    wanted = [targets] if isinstance(targets, str) else targets
    chosen: set[str] = set()
    for word in wanted:
        found = [name for name in candidates if ends_with(name, word)]
        if not found and isinstance(targets, str):
            found = _matching(word, candidates, plain)
        if not found:
            known = every.keys() if any(ends_with(name, word) for name in every) else ()
            raise ConfigError(_matches_nothing(model, word, plain, known))
        chosen.update(found)
    return [name for name in candidates if name in chosen]


def _matching(expression: str, candidates: list[str], plain: list[str]) -> list[str]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ConfigError(
            f"lora.targets={expression!r} is neither {', '.join(GROUPS)}, nor a name, nor a regular "
            f"expression: {error}."
        ) from error
    return [
        name
        for name in candidates
        if pattern.fullmatch(name) and (name in plain or name.rpartition(".")[2] in expression)
    ]


def _matches_nothing(model: PreTrainedModel, word: str, plain: list[str], known: Collection[str]) -> str:
    if known:
        return (
            f"lora.targets: {word!r} is no linear layer or embedding of {type(model).__name__}, so it "
            f"takes no low-rank update. Train it whole: lora.modules_to_save=[{word}]."
        )
    return (
        f"lora.targets: {word!r} matches no linear layer of this model. "
        f"Closest: {closest(word, plain)}. Or use {ALL_LINEAR}."
    )


def _in_layers(chosen: list[str], every: dict[str, nn.Module], lora: LoraConfig) -> list[str]:
    if lora.layers is None:
        return chosen
    numbers = {number for name in every if (number := layer_of(name)) is not None}
    if unknown := [number for number in lora.layers if number not in numbers]:
        raise ConfigError(
            f"lora.layers={unknown}: this model has {len(numbers)} decoder layers, "
            f"{min(numbers, default=0)} to {max(numbers, default=0)}."
        )
    kept = [name for name in chosen if layer_of(name) in lora.layers]
    if not kept:
        raise ConfigError(f"lora.layers={lora.layers} holds none of the layers that lora.targets names.")
    return kept


def _without_saved(chosen: list[str], saved: list[str]) -> list[str]:
    """Leaves out what trains whole, as PEFT does, and everything inside it."""
    return [name for name in chosen if not any(f".{each}." in f".{name}." for each in saved)]


def _fused_reason(names: Collection[str]) -> str:
    last = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
    return f"{last} left out: in this family PEFT takes these names for the fused experts"
