"""Biases of the base that train with an adapter, and the base without them."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MethodType

from peft import PeftModel
from torch import Tensor, nn

from loralab.model.module_names import PEFT_PREFIX


def copy_biases(model: nn.Module) -> dict[str, Tensor]:
    """Copies every bias of a base that has no adapter yet, by name."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[2] == "bias"
    }


def keep_base_biases(model: PeftModel, originals: Mapping[str, Tensor]) -> None:
    """Lets `disable_adapter` bring the base's own biases back while it lasts; PEFT leaves the trained ones.

    Args:
        model: An adapted model, whose biases may have been trained.
        originals: What `copy_biases` found before.
    """
    if getattr(model.active_peft_config, "bias", "none") == "none":
        return
    disable = model.disable_adapter

    @contextmanager
    def disable_adapter(model: PeftModel) -> Iterator[None]:
        """Turns the adapter off, biases included."""
        parameters = {name.replace(".base_layer.", "."): p for name, p in model.named_parameters()}
        chosen = [(parameters[PEFT_PREFIX + name], values) for name, values in originals.items()]
        trained = [parameter.data for parameter, _ in chosen]
        for parameter, values in chosen:
            parameter.data = values.to(parameter.data)
        try:
            with warnings.catch_warnings():
                # PEFT says that trained biases stay; they do not.
                warnings.filterwarnings("ignore", message="Careful, disabling adapter layers with bias")
                with disable():
                    yield
        finally:
            for (parameter, _), values in zip(chosen, trained, strict=True):
                parameter.data = values

    model.disable_adapter = MethodType(disable_adapter, model)  # type: ignore[method-assign]
