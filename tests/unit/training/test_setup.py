"""What a run refuses before it reads rows."""

from pathlib import Path

import pytest
from transformers import LlamaConfig

from loralab.config.model import ModelConfig
from loralab.config.schema import TrainConfig
from loralab.errors import ModelError
from loralab.model import prequantized
from loralab.training.setup import prepare


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
