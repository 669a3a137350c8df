import pytest
import torch
from torch import nn

from loralab.config.schema import OptimConfig
from loralab.errors import ConfigError
from loralab.optim.build import build_optimizer
from loralab.optim.groups import LR_SCALE, check_lr_pattern, lr_scale, parameter_groups, set_learning_rate

Q, HEAD = "base_model.model.model.layers.0.self_attn.q_proj", "base_model.model.lm_head"
PARAMETERS = {
    f"{Q}.lora_A.default.weight": nn.Parameter(torch.ones(2, 8)),
    f"{Q}.lora_B.default.weight": nn.Parameter(torch.ones(8, 2)),
    f"{Q}.lora_magnitude_vector.default.weight": nn.Parameter(torch.ones(8)),
    f"{Q}.base_layer.bias": nn.Parameter(torch.ones(8)),
    "base_model.model.model.layers.1.mlp.down_proj.ia3_l.default": nn.Parameter(torch.ones(1, 8)),
    f"{HEAD}.modules_to_save.default.weight": nn.Parameter(torch.ones(9, 8)),
}
A, B, MAGNITUDE, BIAS, SCALES, WHOLE = PARAMETERS


def found(config: OptimConfig, key: str) -> dict[str, float]:
    """What each parameter's group says."""
    names = {id(parameter): name for name, parameter in PARAMETERS.items()}
    groups = parameter_groups(PARAMETERS, config)
    return {names[id(parameter)]: group[key] for group in groups for parameter in group["params"]}


def test_every_parameter_is_in_one_group() -> None:
    groups = parameter_groups(PARAMETERS, OptimConfig(weight_decay=0.1, lora_plus_ratio=16))
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in PARAMETERS.values())


def test_vectors_do_not_decay_unless_asked_to() -> None:
    decay = found(OptimConfig(weight_decay=0.1), "weight_decay")
    assert decay == {A: 0.1, B: 0.1, MAGNITUDE: 0.0, BIAS: 0.0, SCALES: 0.0, WHOLE: 0.1}
    decay = found(OptimConfig(weight_decay=0.1, decay_vectors=True), "weight_decay")
    assert set(decay.values()) == {0.1}


def test_lora_plus_speeds_up_b_alone() -> None:
    scales = found(OptimConfig(lora_plus_ratio=16), LR_SCALE)
    assert scales == {name: 16.0 if name == B else 1.0 for name in PARAMETERS}
    assert lr_scale(f"{Q}.lora_B.default", OptimConfig(lora_plus_ratio=16)) == 16  # as AdaLoRA names it


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"q_proj": 0.5}, {A: 0.5, B: 0.5, MAGNITUDE: 0.5, BIAS: 0.5}),
        ({"lm_head": 0.1, "layers.1": 3}, {WHOLE: 0.1, SCALES: 3}),
        ({r"layers\.[01]\.mlp": 2}, {SCALES: 2}),
        ({"lora_magnitude_vector": 4}, {MAGNITUDE: 4}),
        ({"lora_A": 2, "q_proj": 3}, {A: 2, B: 3, MAGNITUDE: 3, BIAS: 3}),  # the first that matches counts
        ({"mlp.*": 5}, {SCALES: 5}),
    ],
)
def test_a_pattern_names_modules_by_their_end(pattern: dict[str, float], expected: dict[str, float]) -> None:
    scales = found(OptimConfig(lr_pattern=pattern), LR_SCALE)
    assert scales == {name: expected.get(name, 1.0) for name in PARAMETERS}


def test_factor_and_ratio_multiply() -> None:
    scales = found(OptimConfig(lr_pattern={"q_proj": 0.5}, lora_plus_ratio=4), LR_SCALE)
    assert (scales[A], scales[B]) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("q_prj", r"optim.lr_pattern: 'q_prj' matches no module that trains. Closest: q_proj"),
        ("proj", r"'proj' matches no module"),  # ends are whole parts
        ("default", "'default' matches no module"),
        ("(q", r"'\(q' is no regular expression"),
    ],
)
def test_a_pattern_that_changes_nothing_is_refused(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_lr_pattern(OptimConfig(lr_pattern={key: 2.0}), PARAMETERS)


def test_the_schedule_scales_every_group() -> None:
    config = OptimConfig(lora_plus_ratio=16, lr_pattern={"lm_head": 0.5})
    optimizer = build_optimizer(PARAMETERS, config, lr=0.1)
    for lr in (0.1, 0.04):
        rates = {group[LR_SCALE]: group["lr"] for group in optimizer.param_groups}
        assert rates == {1.0: lr, 16.0: pytest.approx(16 * lr), 0.5: pytest.approx(lr / 2)}
        set_learning_rate(optimizer.param_groups, 0.04)


def test_lora_plus_moves_b_so_much_further() -> None:
    # The first step of AdamW moves every number by its rate.
    parameters = {name: nn.Parameter(torch.zeros(4, 4)) for name in (A, B)}
    optimizer = build_optimizer(parameters, OptimConfig(lora_plus_ratio=8), lr=1e-3)
    for parameter in parameters.values():
        parameter.grad = torch.ones(4, 4)
    optimizer.step()
    moved = {name: -parameter.mean().item() for name, parameter in parameters.items()}
    assert moved == {A: pytest.approx(1e-3, rel=1e-4), B: pytest.approx(8e-3, rel=1e-4)}
