"""What a run refuses before it reads rows."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from loralab.config.model import ModelConfig
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.config.speed import SpeedConfig
from loralab.errors import ConfigError, ModelError
from loralab.losses import liger
from loralab.model import prequantized
from loralab.training.setup import check_device_options, prepare


def test_int8_weights_that_would_be_split_are_refused_before_rows_are_read(tmp_path: Path) -> None:
    stored = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    LlamaConfig(quantization_config=stored).save_pretrained(tmp_path)
    config = TrainConfig(model=ModelConfig(path=str(tmp_path)))
    config.trainer.accelerator, config.trainer.strategy = "cpu", "fsdp"
    with pytest.raises(ModelError, match=r"trainer\.strategy=fsdp cannot split"):
        prepare(config)


def test_a_missing_library_is_named_before_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {"quant_method": "gptq", "bits": 4}
    LlamaConfig(quantization_config=stored).save_pretrained(tmp_path)
    monkeypatch.setattr(prequantized.importlib.util, "find_spec", lambda name: None)
    config = TrainConfig(model=ModelConfig(path=str(tmp_path)))
    config.trainer.accelerator = "cpu"
    with pytest.raises(ModelError, match=r"which needs a package .* Run `pip install gptqmodel optimum`"):
        prepare(config)


def test_what_needs_a_gpu_is_refused_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = TrainConfig(model=ModelConfig(path=str(tmp_path)))
    config.trainer.gradient_checkpointing = config.trainer.offload_activations = True
    config.trainer.speed.liger = True
    with pytest.raises(ConfigError) as refusal:
        prepare(config)
    assert "Use trainer.offload_activations=false." in str(refusal.value)
    assert "Use trainer.speed.liger=auto." in str(refusal.value)


def test_a_missing_kernel_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(liger, "is_installed", lambda: False)
    gpu = torch.device("cuda")
    with pytest.raises(ConfigError, match=r"pip install 'loralab\[liger\]'"):
        check_device_options(TrainerConfig(speed=SpeedConfig(liger=True)), gpu)
    check_device_options(TrainerConfig(gradient_checkpointing=True, offload_activations=True), gpu)
