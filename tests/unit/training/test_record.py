"""What the id of a run says about its adapter."""

import pytest

from loralab.config.load import compose_train
from loralab.model.prequantized import Prequantized
from loralab.training.record import adapter_label

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
