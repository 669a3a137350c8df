import pytest
import torch

from loralab.errors import ConfigError
from loralab.model import hardware
from loralab.model.hardware import check_quantization, choose_dtype, multiplies_bf16


@pytest.mark.parametrize(
    ("device_type", "native_bf16", "dtype"),
    [
        ("cuda", True, torch.bfloat16),
        ("cuda", False, torch.float32),
        ("cpu", True, torch.bfloat16),
        ("cpu", False, torch.float32),
    ],
)
def test_auto_takes_what_the_device_multiplies_natively(
    device_type: str, native_bf16: bool, dtype: torch.dtype
) -> None:
    assert choose_dtype("auto", device_type, native_bf16).dtype == dtype


def test_a_slow_choice_is_kept_and_said() -> None:
    choice = choose_dtype("bf16", "cuda", native_bf16=False)
    assert (choice.dtype, choice.reason) == (
        torch.bfloat16,
        "trainer.precision=bf16, which this GPU emulates slowly",
    )
    assert choose_dtype("fp32", "cpu", native_bf16=True).reason == "trainer.precision=fp32"


@pytest.mark.parametrize(("device_type", "said"), [("cuda", ""), ("cpu", ", which this CPU emulates slowly")])
def test_fp16_is_slow_on_a_cpu_alone(device_type: str, said: str) -> None:
    choice = choose_dtype("fp16", device_type, native_bf16=False)
    assert (choice.dtype, choice.reason) == (torch.float16, f"trainer.precision=fp16{said}")


def test_an_old_gpu_says_why_it_computes_in_32_bits() -> None:
    reason = "this GPU is older than bfloat16; trainer.precision=fp16 is faster"
    assert choose_dtype("auto", "cuda", native_bf16=False).reason == reason


@pytest.mark.parametrize(
    ("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True), (None, True)]
)
def test_bfloat16_is_native_from_ampere_on(
    capability: tuple[int, int] | None, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "gpu_capability", lambda device: capability)
    assert multiplies_bf16(torch.device("cuda")) is native


@pytest.mark.parametrize(
    ("scheme", "capability"),
    [("nf4", (6, 0)), ("fp4", (6, 1)), ("int8", (7, 5)), ("int8", None), ("none", (3, 5))],
)
def test_a_gpu_that_has_the_kernels_passes(scheme: str, capability: tuple[int, int] | None) -> None:
    assert check_quantization(scheme, capability) is None


def test_a_gpu_that_lacks_the_kernels_is_refused_with_what_it_can_do() -> None:
    with pytest.raises(
        ConfigError,
        match=r"quant=nf4 needs a GPU of compute capability 6.0 or newer \(Pascal, such as P100\); this one "
        r"has 5.2. Use quant=none or trainer.accelerator=cpu",
    ):
        check_quantization("nf4", (5, 2))
    with pytest.raises(ConfigError, match=r"7.5 or newer .* has 7.0. Use quant=nf4"):
        check_quantization("int8", (7, 0))
