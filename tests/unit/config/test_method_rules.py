import pytest

from loralab.config.data import DataConfig
from loralab.config.method_rules import method_faults, num_virtual_tokens
from loralab.config.model import LoraConfig, ModelConfig
from loralab.config.schema import TrainConfig, TrainerConfig

METHODS = ["lora", "adalora", "vera", "ia3", "prefix", "prompt", "ptuning"]


def faults(**parts: object) -> list[str]:
    return list(method_faults(TrainConfig(**parts)))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes_as_it_comes(method: str) -> None:
    assert faults(lora=LoraConfig(method=method)) == []


@pytest.mark.parametrize("rank", [8, 16, 64])
def test_alpha_that_follows_the_rank_was_not_set(rank: int) -> None:
    assert faults(lora=LoraConfig(method="adalora", r=rank)) == []
    assert not any("alpha" in fault for fault in faults(lora=LoraConfig(method="ia3", r=rank)))


def test_fields_of_other_methods_are_refused_by_name() -> None:
    found = faults(lora=LoraConfig(method="ia3", r=64, dora=True, rank_pattern={"q_proj": 4}))
    assert found == [
        "lora.r=64 has no effect with lora.method=ia3; it belongs to lora, adalora, vera. Leave it out.",
        "lora.dora=True has no effect with lora.method=ia3; it belongs to lora. Leave it out.",
        "lora.rank_pattern={q_proj:4} has no effect with lora.method=ia3; it belongs to lora. Leave it out.",
    ]
    [fault] = faults(lora=LoraConfig(prompt_text="Call a tool."))
    assert "lora.prompt_text=Call a tool. has no effect with lora.method=lora" in fault


@pytest.mark.parametrize(("initial", "refused"), [(17, False), (16, True), (3, True), (None, False)])
def test_adalora_needs_something_to_prune(initial: int | None, refused: bool) -> None:
    found = faults(lora=LoraConfig(method="adalora", r=16, initial_rank=initial))
    assert bool(found) == refused
    assert all("lora.initial_rank" in fault for fault in found)


@pytest.mark.parametrize("method", METHODS)
def test_learned_tokens_do_not_go_into_packed_rows(method: str) -> None:
    found = faults(lora=LoraConfig(method=method), data=DataConfig(packing=True))
    assert [fault.split(" ")[0] for fault in found] == (
        ["data.packing=true"] if method in ("prefix", "prompt", "ptuning") else []
    )


def test_checkpointing_would_drop_a_prefix() -> None:
    trainer = TrainerConfig(gradient_checkpointing=True)
    [fault] = faults(lora=LoraConfig(method="prefix"), trainer=trainer)
    assert "trainer.gradient_checkpointing=true" in fault
    assert faults(lora=LoraConfig(method="prompt"), trainer=trainer) == []


def test_added_tokens_are_refused_where_no_embedding_row_trains() -> None:
    model = ModelConfig(added_tokens=["<call>"])
    assert faults(lora=LoraConfig(), model=model) == []
    assert "model.added_tokens" in faults(lora=LoraConfig(method="vera"), model=model)[0]


def test_virtual_tokens_count_only_where_they_are() -> None:
    assert num_virtual_tokens(LoraConfig(method="prefix", virtual_tokens=7)) == 7
    assert num_virtual_tokens(LoraConfig(virtual_tokens=7)) == 0
