"""What training and evaluation both need before a model runs: tokenizer, data and their checks."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loralab.config.gpu_rules import faults_without_gpu
from loralab.config.method_rules import num_virtual_tokens
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.data.prepare import PreparedData, prepare_data
from loralab.data.templating import set_chat_template
from loralab.errors import ConfigError
from loralab.losses.liger import check_liger
from loralab.model.compiled import check_compiler
from loralab.model.description import describe_loading
from loralab.model.hardware import check_quantization, gpu_capability, resolve_device, resolve_dtype
from loralab.model.load import check_length, load_config, quiet_libraries, skeleton
from loralab.model.lora import check_adapter
from loralab.model.prequantized import trainable_prequantized
from loralab.model.quantize import check_skip_modules
from loralab.model.sharding import check_splittable
from loralab.model.targets import Targets
from loralab.model.tokenizer import check_vocabulary, load_tokenizer
from loralab.optim.build import check_optimizer


@dataclass(frozen=True)
class Setup:
    """Everything that is known before weights load."""

    device: torch.device
    dtype: torch.dtype
    model: PreTrainedModel
    """The module tree of the base, without weights."""
    targets: Targets | None
    """The layers that the adapter goes on; None for methods that change no layer."""
    tokenizer: PreTrainedTokenizerBase
    data: PreparedData
    notes: list[str]
    """How the model will be loaded: a line for each choice, with its reason."""


def prepare(config: TrainConfig) -> Setup:
    """Checks hardware, model, template and data, in the order of what fails fastest.

    Raises:
        LoralabError: Something the user must change.
    """
    quiet_libraries()
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    device = resolve_device(config.trainer.accelerator)
    check_optimizer(config.optim.name, device)
    check_device_options(config.trainer, device)
    dtype = resolve_dtype(config.trainer.precision, device)
    model_config = load_config(config.model)
    check_length(model_config, config.data.max_length, num_virtual_tokens(config.lora))
    stored = trainable_prequantized(config.model, model_config)
    if config.trainer.strategy == "fsdp":
        check_splittable(config.model, stored)
    check_quantization(stored.scheme if stored else config.quant.name, gpu_capability(device))
    model = skeleton(config.model, model_config)
    check_skip_modules(model, config.quant)
    targets = check_adapter(model, config.lora)
    notes = describe_loading(config, model_config, device, dtype)
    tokenizer = load_tokenizer(config.model)
    check_vocabulary(tokenizer, model_config, config.model)
    set_chat_template(tokenizer, config.data.chat_template)
    data = prepare_data(config.data, tokenizer, config.seed)
    return Setup(device, dtype, model, targets, tokenizer, data, notes)


def check_device_options(trainer: TrainerConfig, device: torch.device) -> None:
    """Refuses options of the trainer that the device found, or what is installed, cannot do.

    Raises:
        ConfigError: One message that lists them.
    """
    faults = list(faults_without_gpu(trainer)) if device.type == "cpu" else []
    if faults:
        raise ConfigError("\n  ".join(faults))
    check_liger(trainer.speed.liger)
    if trainer.speed.compile:
        check_compiler(device)
