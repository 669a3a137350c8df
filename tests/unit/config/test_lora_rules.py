from typing import Any

import pytest

from loralab.config.lora_rules import lora_faults
from loralab.config.model import LoraConfig, QuantConfig
from loralab.config.schema import TrainConfig


def faults(quant: str = "nf4", **lora: Any) -> list[str]:
    return list(lora_faults(TrainConfig(lora=LoraConfig(**lora), quant=QuantConfig(name=quant))))


@pytest.mark.parametrize("targets", ["auto", "mlp", r".*q_proj", ["q_proj", "v_proj"]])
def test_the_defaults_and_every_kind_of_target_pass(targets: object) -> None:
    assert faults(targets=targets) == []


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ({"targets": []}, "lora.targets=[] is not allowed. Give auto, attention"),
        ({"targets": [3]}, "lora.targets=[3] is not allowed."),
        ({"layers": []}, "lora.layers=[] is not allowed. Give layer numbers from 0"),
        ({"layers": [-1]}, "lora.layers=[-1] is not allowed."),
        ({"targets": ["lm_head"], "modules_to_save": ["lm_head"]}, "both name lm_head"),
        ({"rank_pattern": {"q_proj": 0}}, "lora.rank_pattern: q_proj=0 is out of range. Allowed: 1 to 1024."),
        (
            {"alpha_pattern": {"q_proj": 0.0}},
            "lora.alpha_pattern: q_proj=0.0 is out of range. Allowed: above 0.",
        ),
        ({"init": "pissa"}, "With quant=nf4 use lora.init=loftq or eva, or set quant=none."),
        ({"init": "orthogonal", "r": 7}, "7 is odd. Use an even rank."),
        ({"init": "orthogonal", "rank_pattern": {"q_proj": 3}}, "3 is odd."),
        ({"init": "loftq", "dora": True}, "Set lora.dora=false, or use lora.init=default."),
    ],
)
def test_each_fault_is_named_with_its_fix(lora: dict[str, Any], expected: str) -> None:
    (fault,) = faults(**lora)
    assert expected in fault


def test_each_start_stands_on_the_bases_that_it_fits() -> None:
    for init in ("pissa", "olora", "corda"):
        assert faults(quant="none", init=init) == []
        assert len(faults(quant="int8", init=init)) == 1
    assert [len(faults(quant=quant, init="loftq")) for quant in ("nf4", "fp4", "int8", "none")] == [
        0,
        0,
        1,
        1,
    ]
    assert len(faults(quant="none", init="pissa", dora=True)) == 1


def test_other_methods_are_left_to_their_own_rules() -> None:
    assert faults(method="vera", init="pissa") == []
