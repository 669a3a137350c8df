"""Modules that train whole and are saved with an adapter."""

from torch import nn
from transformers import PreTrainedModel

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.tokens import is_tied
from loralab.model.module_names import closest, ends_with


def find_saved_modules(model: PreTrainedModel, lora: LoraConfig) -> list[str]:
    """Returns the whole names of the modules that `lora.modules_to_save` names by their ends.

    Embeddings that are tied to the head stand for both; PEFT's `ensure_weight_tying` keeps them one, which
    only its LoRA has.

    Raises:
        ConfigError: A name matches no module, one whose weights are quantized, which cannot train, or tied
            embeddings that the method would untie.
    """
    every = dict(model.named_modules())
    found: dict[str, None] = {}
    for end in lora.modules_to_save:
        matches = [name for name in every if name and ends_with(name, end)]
        if not matches:
            raise ConfigError(
                f"lora.modules_to_save: {end!r} matches no module of this model. "
                f"Closest: {closest(end, [name for name in every if name])}."
            )
        for name in matches:
            _check_trainable(name, every[name])
            found[name] = None
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if is_tied(model) and any(every[name] in (embeddings, head) for name in found):
        if lora.method != "lora":
            raise ConfigError(
                f"lora.modules_to_save=[{','.join(lora.modules_to_save)}]: the embeddings of this model are "
                f"tied to its head, and lora.method={lora.method} would train them apart. Leave them out, or "
                "use lora.method=lora."
            )
        found = {name: None for name in found if every[name] is not head}
        found[next(name for name, module in every.items() if module is embeddings)] = None
    return list(found)


def _check_trainable(name: str, module: nn.Module) -> None:
    parameters = list(module.parameters())
    if not parameters:
        raise ConfigError(f"lora.modules_to_save: {name} has no weights to train.")
    if any(
        not parameter.is_floating_point() or hasattr(parameter, "quant_state") for parameter in parameters
    ):
        raise ConfigError(
            f"lora.modules_to_save: the weights of {name} are quantized, so they cannot train. Keep it "
            f"out of quantization: quant.skip_modules=[{name.rpartition('.')[2]}]."
        )
