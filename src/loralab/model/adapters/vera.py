"""VeRA (arXiv:2310.11454): one pair of random matrices for all layers, and two learned vectors in each."""

import peft
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loralab.config.model import LoraConfig
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.saved_modules import find_saved_modules
from loralab.model.targets import find_targets

PROJECTIONS = ("vera_A", "vera_B")


def vera_config(model: PreTrainedModel, lora: LoraConfig, context: AdapterContext) -> peft.PeftConfig:
    """Builds PEFT's config of VeRA.

    The shared matrices are as large as the widest layer needs, and each layer takes its corner of them.
    They are saved with the adapter: drawn again from a seed they may differ between versions of PyTorch.

    Raises:
        ConfigError: A target or a module to save names nothing in the model.
    """
    targets = find_targets(model, lora)
    return peft.VeraConfig(
        r=lora.r,
        vera_dropout=lora.dropout,
        target_modules=targets.selector,
        modules_to_save=find_saved_modules(model, lora) or None,
        # Where the generator of the adapter's own weights stands: `seed` decides both.
        projection_prng_key=int(torch.randint(2**31, (), device="cpu").item()),
        save_projection=True,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in targets.names),
        task_type="CAUSAL_LM",
    )


def fixed_projections(model: PeftModel) -> dict[str, Tensor]:
    """Returns the shared random matrices by name; nothing for other methods."""
    return {
        f"base_model.{name}.{adapter}": matrix
        for name in PROJECTIONS
        if isinstance(model.base_model, peft.VeraModel)
        for adapter, matrix in getattr(model.base_model, name).items()
    }
