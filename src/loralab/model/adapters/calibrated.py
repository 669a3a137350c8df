"""First values of low-rank updates that are worked out from what flows through the layers."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import peft
import torch
from peft.tuners.lora.eva import get_eva_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.pairs import Pair, full_weight, split_pair
from loralab.model.adapters.patterns import layer_rank, layer_scale, layer_sides

Batch = dict[str, Tensor]
MOST_PASSES = 50
"""Passes over the calibration batches after which EVA counts as not converging."""
COVARIANCE_BYTES = 4 * 2**30
"""Covariances are held for as many layers at once as fit into this."""
DAMPING = 0.01
"""Share of the mean diagonal added to a covariance before it is inverted; doubled until that is accurate."""
INVERSE_ERROR = 0.05
"""Largest distance of C C^-1 from the identity, as PEFT has it."""


class _Repeated:
    """Calibration batches that can be passed over a limited number of times."""

    def __init__(self, batches: list[Batch]) -> None:
        """Takes batches of one run."""
        self._batches = batches
        self._passes = 0

    def __len__(self) -> int:
        """Returns the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yields copies, which may be changed.

        Raises:
            ConfigError: They were passed over too often.
        """
        self._passes += 1
        if self._passes > MOST_PASSES:
            raise ConfigError(
                f"lora.init=eva has not converged on {len(self._batches)} calibration batches after "
                f"{MOST_PASSES} passes. Train on more rows, or use lora.init=default."
            )
        return iter([dict(batch) for batch in self._batches])


def eva_starts(
    model: PreTrainedModel, names: list[str], lora: LoraConfig, context: AdapterContext
) -> dict[str, Pair]:
    """Starts A at the directions in which a layer's inputs vary most, and B at zero.

    Source: EVA, arXiv:2410.07170, section 3. Every layer keeps the rank that it is given: the paper's rho
    is 1, so that the size of the adapter is known before the run.

    Raises:
        ConfigError: There are no calibration batches, or too few tokens in each for the rank.
    """
    highest = max(layer_rank(lora, name) for name in names)
    batches = [batch for batch in _batches(lora, context) if int(batch["attention_mask"].sum()) > highest]
    if not batches:
        raise ConfigError(
            f"lora.init=eva needs batches of more than {highest} tokens, the rank, and the training rows are "
            "too short for that. Use a lower lora.r, longer rows, or lora.init=default."
        )
    config = peft.LoraConfig(
        r=highest,
        # Whole names as one expression: PEFT then takes no layer besides these.
        target_modules="|".join(name.replace(".", r"\.") for name in names),
        init_lora_weights="eva",
        eva_config=peft.EvaConfig(rho=1.0),
    )
    found = get_eva_state_dict(
        model,
        _Repeated(batches),
        config,
        forward_fn=lambda target, batch: _run(target, names, batch),
        show_progress_bar=False,
    )
    pairs = {}
    for name in names:
        _, outputs = layer_sides(model.get_submodule(name))
        directions = found[name][: layer_rank(lora, name)].float()
        pairs[name] = Pair(directions.contiguous(), directions.new_zeros(outputs, len(directions)))
    return pairs


def corda_starts(
    model: PreTrainedModel, names: list[str], lora: LoraConfig, context: AdapterContext
) -> dict[str, Pair]:
    """Takes the part of each weight that matters most for the calibration rows.

    W C = U S V^T with the covariance C of the inputs, and B A = U S V^T C^-1 of the largest singular values
    (CorDA, arXiv:2406.05223, section 3, instruction-previewed mode).

    Raises:
        ConfigError: There are no calibration batches.
        ModelError: A layer is quantized.
    """
    batches, pairs = _batches(lora, context), {}
    for group in _groups(model, names):
        for name, covariance in covariances(model, group, names, batches).items():
            weight = full_weight(name, model.get_submodule(name))
            damped, inverse = _invert(covariance)
            left, values, right = torch.linalg.svd(weight @ damped, full_matrices=False)
            rank = layer_rank(lora, name)
            pairs[name] = split_pair(
                left[:, :rank], values[:rank] / layer_scale(lora, name), right[:rank] @ inverse
            )
    return {name: pairs[name] for name in names}


@torch.no_grad()
def covariances(
    model: PreTrainedModel, group: Iterable[str], names: list[str], batches: Iterable[Batch]
) -> dict[str, Tensor]:
    """Returns the mean of x x^T over the tokens that reach each layer: [in, in], float32.

    Args:
        model: The base model.
        group: Layers to measure.
        names: All adapted layers, which say how far the model has to run.
        batches: `input_ids` and `attention_mask`, [batch, seq]; padding does not count.
    """
    sums: dict[str, Tensor] = {}
    mask = torch.empty(0, dtype=torch.bool)

    def measure(name: str) -> Any:
        """Makes a hook that adds a layer's inputs to its sum."""

        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            """Adds those of real tokens."""
            tokens = inputs[0].reshape(mask.numel(), -1)[mask.reshape(-1).to(inputs[0].device)].float()
            product = tokens.T @ tokens
            sums[name] = sums[name] + product if name in sums else product

        return add

    training, total = model.training, 0
    handles = [model.get_submodule(name).register_forward_pre_hook(measure(name)) for name in group]
    try:
        model.eval()
        for batch in batches:
            mask = batch["attention_mask"].bool()
            total += int(mask.sum())
            _run(model, names, {key: value.to(model.device) for key, value in batch.items()})
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return {name: value / total for name, value in sums.items()}


def _batches(lora: LoraConfig, context: AdapterContext) -> list[Batch]:
    batches = [] if context.calibration is None else list(context.calibration())
    if not batches:
        raise ConfigError(f"lora.init={lora.init} measures training rows, and there are none here.")
    return [{key: batch[key] for key in ("input_ids", "attention_mask")} for batch in batches]


def _run(model: PreTrainedModel, names: Iterable[str], batch: Mapping[str, Tensor]) -> None:
    """Runs the decoder, and the output head only where it is adapted: logits are large."""
    inside = all(name.startswith(f"{model.base_model_prefix}.") for name in names)
    runner: nn.Module = model.base_model if inside else model
    runner(**copy.copy(dict(batch)), use_cache=False)


def _groups(model: PreTrainedModel, names: Iterable[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name in names:
        num_bytes = 4 * layer_sides(model.get_submodule(name))[0] ** 2
        if group and size + num_bytes > COVARIANCE_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += num_bytes
    yield group


def _invert(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a damped covariance and its inverse."""
    damping, identity = DAMPING, torch.eye(len(covariance), device=covariance.device)
    while True:
        damped = covariance + damping * covariance.diagonal().mean() * identity
        inverse = torch.linalg.inv(damped)
        if torch.dist(damped @ inverse, identity) < INVERSE_ERROR:
            return damped, inverse
        damping *= 2
