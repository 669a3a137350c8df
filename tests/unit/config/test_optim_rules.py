"""Options of `optim` and `schedule` that would change nothing, or that do not go together."""

import pytest

from loralab.config.model import LoraConfig
from loralab.config.optim_rules import OPTIM_FIELDS, SCHEDULES, optim_faults, paged_fault
from loralab.config.schema import OptimConfig, ScheduleConfig, TrainConfig, TrainerConfig


def faults(
    method: str = "lora", schedule: ScheduleConfig | None = None, accelerator: str = "auto", **optim: object
) -> list[str]:
    config = TrainConfig(
        optim=OptimConfig(**optim),
        lora=LoraConfig(method=method),
        schedule=schedule or ScheduleConfig(name="constant"),
        trainer=TrainerConfig(accelerator=accelerator),
    )
    return list(optim_faults(config))


@pytest.mark.parametrize("name", OPTIM_FIELDS)
def test_an_optimizer_by_itself_is_sound(name: str) -> None:
    assert faults(name=name) == []


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_by_itself_is_sound(name: str) -> None:
    assert faults(schedule=ScheduleConfig(name=name)) == []


def test_an_option_of_another_optimizer_is_refused() -> None:
    assert faults(name="sgd", betas=[0.8, 0.9], eps=1e-6) == [
        "optim.betas=[0.8,0.9] has no effect with optim=sgd; it belongs to adamw, adamw_8bit, paged_adamw, "
        "paged_adamw_8bit, lion, lamb, novograd, muon, schedule_free_adamw. Leave it out.",
        "optim.eps=1e-06 has no effect with optim=sgd; it belongs to adamw, adamw_8bit, paged_adamw, "
        "paged_adamw_8bit, lamb, novograd, muon, schedule_free_adamw. Leave it out.",
    ]
    assert faults(momentum=0.8, nesterov=True) == [
        "optim.momentum=0.8 has no effect with optim=adamw; it belongs to sgd, muon. Leave it out.",
        "optim.nesterov=true has no effect with optim=adamw; it belongs to sgd, muon. Leave it out.",
    ]


def test_an_option_of_another_schedule_is_refused() -> None:
    (fault,) = faults(schedule=ScheduleConfig(name="cosine", cycles=2))
    assert fault == (
        "schedule.cycles=2 has no effect with schedule=cosine; it belongs to cosine_restarts. Leave it out."
    )


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"name": "sgd", "momentum": 0.0, "nesterov": True}, "optim.nesterov=true looks ahead by"),
        ({"lr_pattern": {"lm_head": 0.0}}, "optim.lr_pattern: lm_head=0.0 is out of range."),
        ({"method": "ia3", "lora_plus_ratio": 16.0}, "optim.lora_plus_ratio=16 tells B from A, which"),
        ({"method": "vera", "name": "muon"}, "which lora.method=vera has not. Use optim=adamw."),
        ({"method": "adalora", "name": "novograd"}, "which optim=novograd overwrites. Use optim=adamw."),
        ({"name": "paged_adamw_8bit", "accelerator": "cpu"}, "Use optim=adamw_8bit."),
        (
            {"name": "schedule_free_adamw", "schedule": ScheduleConfig(name="wsd")},
            "and schedule=wsd would do both. Use schedule=constant.",
        ),
        ({"name": "schedule_free_adamw", "betas": [0.0, 0.9]}, "optim.betas[0]=0 leaves"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, object], fragment: str) -> None:
    (fault,) = faults(**options)  # type: ignore[arg-type]
    assert fragment in fault


def test_adalora_takes_lora_plus_and_what_leaves_gradients_alone() -> None:
    assert faults("adalora", name="lion", lora_plus_ratio=4.0) == []


def test_only_paged_optimizers_need_a_gpu() -> None:
    assert {name for name in OPTIM_FIELDS if paged_fault(name)} == {"paged_adamw", "paged_adamw_8bit"}
