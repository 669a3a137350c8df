"""What the id of a run says about its adapter."""

from pathlib import Path
from typing import Any, cast

import pytest

from loralab.config.load import compose_train
from loralab.errors import ConfigError
from loralab.model.prequantized import Prequantized
from loralab.runs.folder import create_run
from loralab.training.record import adapter_label, begin_training

GPTQ = Prequantized("gptq", "GPTQ 4-bit", "gptq")
NF4 = Prequantized("bitsandbytes", "bitsandbytes nf4", "nf4")


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ([], "r8"),
        (["lora=r64", "quant=int8"], "r64_int8"),
        (["quant=none"], "r8_noquant"),
        (["lora=dora"], "dora_r8"),
        (["lora=rslora", "lora.r=16", "quant=fp4"], "rslora_r16_fp4"),
        (["lora=eva", "lora.dora=true"], "eva_dora_r8"),
        (["lora=pissa", "quant=none"], "pissa_r8_noquant"),
        (["lora=adalora"], "adalora_r8"),
        (["lora=vera"], "vera_r256"),
        (["lora=ia3"], "ia3"),
        (["lora=prefix"], "prefix20"),
        (["lora=ptuning", "lora.virtual_tokens=8", "quant=int8"], "ptuning8_int8"),
    ],
)
def test_a_label_names_what_is_not_the_default(words: list[str], label: str) -> None:
    assert adapter_label(compose_train(words), None) == label


@pytest.mark.parametrize(("stored", "label"), [(GPTQ, "r8_gptq"), (NF4, "r8")])
def test_a_base_that_comes_quantized_is_named_by_its_own_scheme(stored: Prequantized, label: str) -> None:
    assert adapter_label(compose_train(["quant=int8"]), stored) == label


def test_a_name_that_another_process_took_meanwhile_is_refused(tmp_path: Path) -> None:
    run = create_run(str(tmp_path), "train", "mine")
    run.config_path.write_text("seed: 1")
    with pytest.raises(ConfigError, match=r"begun by another process just now\. Choose another name"):
        begin_training(run, compose_train([]), cast(Any, None))
    assert run.config_path.read_text() == "seed: 1"
