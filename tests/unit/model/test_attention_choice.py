from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING

from loralab.config.model import ModelConfig
from loralab.errors import ConfigError
from loralab.model import attention_choice
from loralab.model.attention_choice import AttentionChoice, choose_attention, logit_cap

CPU, GPU = torch.device("cpu"), torch.device("cuda")
AMPERE, TURING = (8, 0), (7, 5)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with an Ampere GPU and flash-attn 2.8; tests change a part of it."""
    monkeypatch.setattr(attention_choice, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(attention_choice, "gpu_capability", lambda device: AMPERE)
    monkeypatch.setattr(attention_choice, "version", lambda package: "2.8.3")
    return monkeypatch


def choose(
    kind: str,
    device: torch.device = GPU,
    dtype: torch.dtype = torch.bfloat16,
    attention: str = "auto",
    packing: bool = False,
    **changes: Any,
) -> AttentionChoice:
    config = ModelConfig(path="owner/model", attention=attention)
    return choose_attention(config, CONFIG_MAPPING[kind](**changes), device, dtype, packing)


def test_flash_attention_is_taken_where_it_runs(flash: pytest.MonkeyPatch) -> None:
    assert choose("llama") == AttentionChoice("flash_attention_2", "installed, and this GPU runs it")


@pytest.mark.parametrize(
    ("device", "dtype", "reason"),
    [
        (CPU, torch.bfloat16, "it needs a GPU"),
        (GPU, torch.float32, "it computes in 16 bits, the run in float32"),
    ],
)
def test_sdpa_is_next_and_says_why(
    device: torch.device, dtype: torch.dtype, reason: str, flash: pytest.MonkeyPatch
) -> None:
    assert choose("llama", device, dtype) == AttentionChoice("sdpa", f"flash_attention_2 is out: {reason}")


def test_an_older_gpu_gets_sdpa(flash: pytest.MonkeyPatch) -> None:
    flash.setattr(attention_choice, "gpu_capability", lambda device: TURING)
    choice = choose("llama", dtype=torch.float16)
    assert choice.name == "sdpa"
    assert "compute capability 8.0, this one has 7.5" in choice.reason


def test_heads_wider_than_flash_attention_takes_get_sdpa(flash: pytest.MonkeyPatch) -> None:
    assert choose("llama", head_dim=256).name == "flash_attention_2"
    choice = choose("llama", head_dim=512)
    assert (choice.name, choice.reason) == (
        "sdpa",
        "flash_attention_2 is out: it takes heads of 256, the model has 512",
    )


def test_capped_logits_are_eager_or_recent_flash_attention(flash: pytest.MonkeyPatch) -> None:
    assert choose("gemma2").name == "flash_attention_2"
    flash.setattr(attention_choice, "version", lambda package: "2.5.9")
    assert "flash-attn older than 2.6 cannot cap" in choose("gemma2").reason
    on_cpu = choose("gemma2", CPU)
    assert on_cpu.name == "eager"
    assert on_cpu.reason.startswith("sdpa is out: it cannot cap attention logits, which this model does")


def test_architectures_without_sdpa_are_eager() -> None:
    choice = choose("gptj", CPU)
    assert choice.name == "eager"
    assert choice.reason.startswith("sdpa is out: GPTJForCausalLM has no implementation for it")


def test_sinks_keep_flash_attention_2_out(flash: pytest.MonkeyPatch) -> None:
    assert choose("gpt_oss").name == "eager"


def test_packing_says_what_packed_rows_run_on() -> None:
    choice = choose("llama", CPU, packing=True)
    assert choice.reason == (
        "flash_attention_2 is out: it needs a GPU; rows laid end to end run on document attention"
    )


@pytest.mark.parametrize(
    ("kind", "attention", "message"),
    [
        ("llama", "flash_attention_2", "model.attention=flash_attention_2 cannot run here: it needs a GPU. "),
        ("gemma2", "sdpa", "model.attention=sdpa cannot run here: it cannot cap attention logits"),
        ("gptj", "sdpa", "GPTJForCausalLM has no implementation for it. Use model.attention=auto"),
    ],
)
def test_a_choice_that_cannot_run_is_refused(kind: str, attention: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(kind, CPU, attention=attention)


def test_a_choice_that_runs_is_kept(flash: pytest.MonkeyPatch) -> None:
    assert choose("llama", attention="eager") == AttentionChoice("eager", "model.attention=eager")


def test_the_cap_is_that_of_attention_not_of_the_output() -> None:
    assert logit_cap(CONFIG_MAPPING["gemma2"](attn_logit_softcapping=30.0)) == 30.0
    assert logit_cap(CONFIG_MAPPING["recurrent_gemma"](logits_soft_cap=20.0)) is None
    assert logit_cap(CONFIG_MAPPING["llama"]()) is None
