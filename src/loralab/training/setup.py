"""What training and evaluation both need before a model runs: tokenizer, data and their checks."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from loralab.config.schema import TrainConfig
from loralab.data.datamodule import make_layout
from loralab.data.layout import Layout
from loralab.data.plan import StepPlan
from loralab.data.prepare import PreparedData, prepare_data
from loralab.data.templating import set_chat_template
from loralab.model.hardware import resolve_device, resolve_dtype
from loralab.model.load import check_length, load_config, load_tokenizer, quiet_libraries, skeleton
from loralab.model.lora import resolve_targets


@dataclass(frozen=True)
class Setup:
    """Everything that is known before weights load."""

    device: torch.device
    dtype: torch.dtype
    tokenizer: PreTrainedTokenizerBase
    data: PreparedData


def prepare(config: TrainConfig) -> Setup:
    """Checks hardware, model, template and data, in the order of what fails fastest.

    Raises:
        LoralabError: Something the user must change.
    """
    quiet_libraries()
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    device = resolve_device(config.trainer.accelerator)
    dtype = resolve_dtype(config.trainer.precision, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model_config = load_config(config.model)
    check_length(model_config, config.data.max_length)
    resolve_targets(skeleton(config.model, model_config), config.lora.targets)
    tokenizer = load_tokenizer(config.model)
    set_chat_template(tokenizer, config.data.chat_template)
    return Setup(device, dtype, tokenizer, prepare_data(config.data, tokenizer, config.seed))


def make_plan(config: TrainConfig, data: PreparedData) -> tuple[Layout, StepPlan]:
    """Says which examples each step sees, before any weights load."""
    trainer = config.trainer
    pack_length = config.data.max_length if config.data.packing else None
    layout = make_layout(data, config.seed, pack_length, trainer.batch_tokens)
    # A group of examples is a whole micro-batch already.
    per_micro_batch = 1 if layout.is_grouped else trainer.batch_size
    plan = StepPlan(
        num_rows=layout.num_units,
        rows_per_step=per_micro_batch * trainer.accumulation,
        epochs=trainer.epochs,
        max_steps=trainer.max_steps,
        val_every=trainer.val_every,
        seed=config.seed,
    )
    return layout, plan
