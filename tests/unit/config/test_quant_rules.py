"""Options of the `quant` group that would change nothing, and the files of the group."""

from pathlib import Path

import pytest
import yaml

from loralab.config.model import QuantConfig
from loralab.config.quant_rules import quant_faults
from loralab.config.schema import TrainConfig, TrainerConfig


def faults(accelerator: str = "auto", **options: object) -> list[str]:
    config = TrainConfig(quant=QuantConfig(**options), trainer=TrainerConfig(accelerator=accelerator))
    return list(quant_faults(config))


@pytest.mark.parametrize("name", ["nf4", "fp4", "int8", "none"])
@pytest.mark.parametrize("double", [True, False])
def test_a_scheme_by_itself_is_sound(name: str, double: bool) -> None:
    assert faults(name=name, double_quant=double) == []


def test_the_options_of_four_bits_are_sound() -> None:
    options = {"compute_dtype": "fp16", "storage_dtype": "bf16", "skip_modules": ["down_proj"]}
    assert faults(name="nf4", **options) == faults(name="fp4", **options) == []


def test_an_option_of_another_scheme_is_refused() -> None:
    assert faults(name="none", compute_dtype="fp16", skip_modules=["q_proj", "k_proj"]) == [
        "quant.compute_dtype=fp16 has no effect with quant=none; it belongs to nf4, fp4. Leave it out.",
        "quant.skip_modules=[q_proj,k_proj] has no effect with quant=none; it belongs to nf4, fp4, int8. "
        "Leave it out.",
    ]
    (fault,) = faults(name="int8", storage_dtype="fp32")
    assert fault.startswith("quant.storage_dtype=fp32 has no effect with quant=int8;")
    (fault,) = faults(name="nf4", int8_threshold=3.0)
    assert fault.startswith("quant.int8_threshold=3.0 has no effect with quant=nf4;")


def test_a_threshold_on_a_cpu_is_refused() -> None:
    assert faults(name="int8", int8_threshold=3.0, accelerator="gpu") == []
    (fault,) = faults(name="int8", int8_threshold=3.0, accelerator="cpu")
    assert fault.startswith("quant.int8_threshold=3 has no effect on a CPU")


@pytest.mark.parametrize("name", ["nf4", "fp4", "int8", "none"])
def test_the_files_of_the_group_say_what_they_are_called(repository: Path, name: str) -> None:
    found = yaml.safe_load((repository / "conf" / "quant" / f"{name}.yaml").read_text())
    assert QuantConfig(**found).name == name
    assert faults(**found) == []
