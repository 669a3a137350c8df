"""What adapter methods still need once PEFT has put them into a model."""

from types import MethodType

from peft import PeftModel
from peft.tuners.adalora import bnb as adalora_bnb
from peft.tuners.ia3 import bnb as ia3_bnb
from torch import Tensor, nn

from loralab.config.model import LoraConfig
from loralab.model.adapters.adalora import freeze_scales
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.prompts import start_from_text, start_prefix

ADAPTER_MARKS = ("lora_", "vera_lambda_", "ia3_", "prompt_encoder.")
"""Parts of the names of the parameters of adapters."""


def finish_adapter(model: PeftModel, lora: LoraConfig, context: AdapterContext) -> None:
    """Completes a new adapter.

    Raises:
        ConfigError: `lora.prompt_text` has no token, or the model cannot take a prefix.
    """
    if lora.method == "adalora":
        freeze_scales(model)
    if lora.method == "prefix":
        start_prefix(model)
    if lora.method == "prompt" and lora.prompt_text is not None:
        start_from_text(model, lora.prompt_text, context)
    match_dtypes(model)


def match_dtypes(model: PeftModel) -> None:
    """Lets PEFT's quantized layers compute in the dtype of their inputs.

    Those of IA3 answer in float32 whatever comes in, which attention refuses beside 16-bit queries, and the
    8-bit layer of AdaLoRA multiplies float32 inputs by 16-bit weights, which fails; its 4-bit layer does
    the same sum in the adapter's dtype.
    """
    for module in model.modules():
        if isinstance(module, (ia3_bnb.Linear4bit, ia3_bnb.Linear8bitLt)):
            module.register_forward_hook(_as_input)
        elif isinstance(module, adalora_bnb.SVDLinear8bitLt):
            module.forward = MethodType(adalora_bnb.SVDLinear4bit.forward, module)  # type: ignore[method-assign]


def _as_input(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.to(inputs[0].dtype)
