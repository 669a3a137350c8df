"""AdaLoRA (arXiv:2303.10512): singular values that compete for a budget of rank."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import peft
import torch
from peft import PeftModel
from peft.tuners.adalora import AdaLoraModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.patterns import layer_sides
from loralab.model.adapters.saved_modules import find_saved_modules
from loralab.model.adapters.steps import StepHooks
from loralab.model.module_names import PEFT_PREFIX
from loralab.model.targets import Targets, find_targets

ORTHOGONALITY_WEIGHT = 0.1
"""Weight of the regulariser; the paper's appendices take 0.1 for nearly every task."""
FEWEST_STEPS = 2
"""One step to see importance, one to prune by it."""
NUM_ALLOCATIONS = 100
"""About how often the budget is dealt out while it shrinks."""


class Phases(NamedTuple):
    """The steps of AdaLoRA's schedule (arXiv:2303.10512, equation 12)."""

    warmup: int
    """Steps at full rank before pruning begins (t_i)."""
    final: int
    """Steps at the end with the budget fixed (t_f)."""
    interval: int
    """Steps between two allocations (delta T)."""


def phases(total_steps: int) -> Phases:
    """Divides a run: a tenth at full rank, six tenths of pruning, three tenths at the final ranks."""
    warmup, final = total_steps // 10, 3 * total_steps // 10
    return Phases(warmup, final, max(1, (total_steps - warmup - final) // NUM_ALLOCATIONS))


def initial_rank(lora: LoraConfig) -> int:
    """Returns the rank that AdaLoRA starts with: given, or one and a half times the final one."""
    return lora.initial_rank if lora.initial_rank is not None else max(lora.r + 1, round(1.5 * lora.r))


def adalora_config(model: PreTrainedModel, lora: LoraConfig, context: AdapterContext) -> peft.PeftConfig:
    """Builds PEFT's config of AdaLoRA for a run of known length.

    Raises:
        ConfigError: The run is too short to prune, a target or a module to save names nothing in the model,
            or the initial rank is above a layer's width.
    """
    total = context.total_steps
    if total is None or total < FEWEST_STEPS:
        raise ConfigError(
            "lora.method=adalora prunes over the optimizer steps of the run and needs at least "
            f"{FEWEST_STEPS}; this run has {total or 'none'}. Train longer, or use lora.method=lora."
        )
    targets, steps = check_adalora(model, lora), phases(total)
    return peft.AdaLoraConfig(
        init_r=initial_rank(lora),
        target_r=lora.r,
        tinit=steps.warmup,
        tfinal=steps.final,
        deltaT=steps.interval,
        total_step=total,
        orth_reg_weight=ORTHOGONALITY_WEIGHT,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT takes any number
        lora_dropout=lora.dropout,
        target_modules=targets.selector,
        modules_to_save=find_saved_modules(model, lora) or None,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in targets.names),
        task_type="CAUSAL_LM",
    )


def check_adalora(model: PreTrainedModel, lora: LoraConfig) -> Targets:
    """Looks targets, modules to save and the initial rank up in the module tree, weights or not.

    Raises:
        ConfigError: A name matches nothing, or AdaLoRA would start above the width of a layer, whose
            singular vectors could not be orthonormal.
    """
    targets = find_targets(model, lora)
    find_saved_modules(model, lora)
    widths = {name: min(layer_sides(model.get_submodule(name))) for name in targets.names}
    name, width = min(widths.items(), key=lambda item: item[1])
    rank = initial_rank(lora)
    if rank > width:
        given = f"{rank}" if lora.initial_rank is not None else f"null is {rank} for lora.r={lora.r}, which"
        raise ConfigError(
            f"lora.initial_rank={given} is above the width of {name} ({width}). Use an initial rank of "
            f"{width} or less, and a lora.r below it."
        )
    return targets


def freeze_scales(model: PeftModel) -> None:
    """Freezes the initial rank, which PEFT keeps as a parameter and lets train where the base is 16 bits."""
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)


class RankAllocation(StepHooks):
    """Regularises and prunes the float32 masters, as PEFT's `update_and_allocate` does to a model.

    PEFT reads the gradients of the model's own parameters, which have moved into the masters by then; its
    allocator asks only for named parameters, so it gets the masters under the model's names.
    """

    def __init__(self, model: PeftModel, masters: Mapping[str, nn.Parameter]) -> None:
        """Takes an AdaLoRA model and its masters, by the names of the model's parameters."""
        tuner = model.base_model
        assert isinstance(tuner, AdaLoraModel)
        config = tuner.peft_config[tuner.trainable_adapter_name]
        assert isinstance(config, peft.AdaLoraConfig)
        self.config = config
        self.allocator = tuner.rankallocator
        self.masters = _Masters(masters)

    def after_backward(self) -> None:
        """Adds the gradients of the regulariser, once a step; the reported loss stays the objective's."""
        distance = self.config.orth_reg_weight * orthogonality(self.masters.parameters)
        distance.backward()

    def after_optimizer_step(self, finished_steps: int, was_taken: bool) -> None:
        """Updates the importance of every triplet and, where the schedule says so, prunes the least.

        The budget follows the steps of the run, as the rate does, whether they are taken or left out; but a
        step without gradients says nothing about importance. PEFT saves only the triplets of its rank
        pattern. Between two allocations pruned triplets may grow back (arXiv:2303.10512, section 3.2), so
        there is a pattern only right after one.
        """
        assert self.config.total_step is not None, "PEFT checks it"
        last = self.config.total_step - self.config.tfinal
        if was_taken and finished_steps < last:
            self.allocator.update_ipt(self.masters)
        if not self.allocator.exp_avg_ipt:
            # Fixed by now; or no step was taken yet, and there is nothing to prune by.
            if self.config.rank_pattern:
                self.allocator.mask_using_rank_pattern(self.masters, self.config.rank_pattern)
            return
        budget, is_due = self.allocator.budget_schedule(finished_steps)
        is_last = finished_steps >= last
        self.config.rank_pattern = (
            self.allocator.mask_to_budget(self.masters, budget) if is_due or is_last else None
        )
        if is_last:
            self.allocator.reset_ipt()

    def state_dict(self) -> dict[str, Any]:
        """Returns the smoothed importance and its uncertainty by parameter, and the rank pattern."""
        return {
            "importance": dict(self.allocator.exp_avg_ipt),
            "uncertainty": dict(self.allocator.exp_avg_unc),
            "rank_pattern": self.config.rank_pattern,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes importance, uncertainty and rank pattern back."""
        places = dict(self.masters.named_parameters())
        importance, uncertainty = (
            {name: values.to(places[name].device, copy=True) for name, values in state[key].items()}
            for key in ("importance", "uncertainty")
        )
        self.allocator.ipt = {name: torch.zeros_like(values) for name, values in importance.items()}
        self.allocator.exp_avg_ipt, self.allocator.exp_avg_unc = importance, uncertainty
        self.config.rank_pattern = state["rank_pattern"]


class _Masters:
    """Looks like a module to PEFT's allocator."""

    def __init__(self, masters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = {name.removeprefix(PEFT_PREFIX): value for name, value in masters.items()}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields the masters by the names that they have inside the `PeftModel`."""
        yield from self.parameters.items()


def orthogonality(parameters: Mapping[str, Tensor]) -> Tensor:
    """Returns how far the singular vectors are from orthonormal, averaged over the matrices.

    The mean of |P'P - I| and |QQ' - I| in the Frobenius norm: arXiv:2303.10512, equation 4, unsquared and
    averaged as in the authors' code.

    Args:
        parameters: `lora_A` [rank, in] and `lora_B` [out, rank] of each layer, among others.
    """
    distances = []
    for name, value in parameters.items():
        if ".lora_A." in name or ".lora_B." in name:
            gram = value @ value.T if ".lora_A." in name else value.T @ value
            distances.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
    return torch.stack(distances).mean()
