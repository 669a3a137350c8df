"""What an adapter learned is measured from the files that it was saved as."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from peft.utils.other import get_pattern_key
from safetensors.torch import save_file
from tests.unit.model.tiny_models import build

from loralab.config.model import LoraConfig
from loralab.evaluation.adapter_report import (
    LayerUpdate,
    effective_rank,
    gradient_scales,
    group_by_kind,
    measure_adapter,
    pattern_yaml,
    singular_values,
    suggest_ranks,
    to_pattern,
)
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.vera import fixed_projections
from loralab.model.lora import attach_adapter, trainable
from loralab.training.closing import describe_updates

LAYER = "model.layers.{}.self_attn.{}"


def update(
    name: str, rank: int, effective: float, scale: float = 2.0, width: int = 1024, rslora: bool = False
) -> LayerUpdate:
    return LayerUpdate(
        name=name,
        rank=rank,
        width=width,
        scale=scale,
        rslora=rslora,
        norm=1.0,
        effective_rank=effective,
        gradient_rms=None,
    )


def save(folder: Path, factors: dict[str, tuple[torch.Tensor, torch.Tensor]], **config: object) -> Path:
    weights = {}
    for name, (factor_a, factor_b) in factors.items():
        weights[f"base_model.model.{name}.lora_A.weight"] = factor_a
        weights[f"base_model.model.{name}.lora_B.weight"] = factor_b
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "use_rslora": False,
        "alpha_pattern": {},
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_singular_values_are_those_of_the_product() -> None:
    generator = torch.Generator().manual_seed(0)
    factor_a, factor_b = torch.randn(3, 20, generator=generator), torch.randn(11, 3, generator=generator)
    expected = torch.linalg.svdvals((factor_b @ factor_a).double())[:3]
    torch.testing.assert_close(singular_values(factor_a, factor_b), expected, rtol=1e-5, atol=1e-5)


def test_a_rank_above_the_width_of_a_layer_is_no_obstacle() -> None:
    assert len(singular_values(torch.ones(8, 4), torch.ones(6, 8))) >= 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0, 2.0, 2.0, 2.0], 4.0),
        ([5.0, 0.0, 0.0], 1.0),
        # 0.75 and 0.25: exp(-0.75 ln 0.75 - 0.25 ln 0.25) = exp(0.562335)
        ([3.0, 1.0], 1.754765),
        ([0.0, 0.0], 0.0),
    ],
)
def test_effective_rank_is_the_exponential_of_the_entropy(values: list[float], expected: float) -> None:
    assert effective_rank(torch.tensor(values, dtype=torch.float64)) == pytest.approx(expected, abs=1e-5)


def test_a_saved_adapter_is_measured_with_its_scaling(tmp_path: Path) -> None:
    # B A = diag(3, 4) in the corner of a 3 x 3 matrix; alpha / r = 4 / 2.
    factor_a = torch.tensor([[3.0, 0, 0], [0, 4.0, 0]])
    factor_b = torch.tensor([[1.0, 0], [0, 1.0], [0, 0]])
    name = LAYER.format(10, "q_proj")
    second = LAYER.format(9, "q_proj")
    folder = save(tmp_path, {name: (factor_a, factor_b), second: (factor_a.clone(), 0 * factor_b)})
    first, last = measure_adapter(folder, rank=2, gradient_rms={name: 0.5})
    assert (first.name, last.name) == (second, name)
    assert last.norm == pytest.approx(2 * 5.0)
    assert (last.scale, last.width, last.rslora) == (2.0, 3, False)
    assert last.effective_rank == pytest.approx(
        math.exp(-(3 / 7) * math.log(3 / 7) - (4 / 7) * math.log(4 / 7))
    )
    assert (last.gradient_rms, first.gradient_rms, first.norm, first.effective_rank) == (0.5, None, 0, 0)
    assert group_by_kind([first, last]) == {"q_proj": [first, last]}


def test_alpha_patterns_and_rslora_scale_as_peft_does(tmp_path: Path) -> None:
    factors = {LAYER.format(0, "q_proj"): (torch.eye(2), torch.eye(2))}
    folder = save(tmp_path, factors, alpha_pattern={r"layers\.0\.self_attn\.q_proj": 8}, use_rslora=True)
    (measured,) = measure_adapter(folder, rank=2)
    # 8 / sqrt(2) on each of two singular values of 1.
    assert measured.norm == pytest.approx(8 / math.sqrt(2) * math.sqrt(2))


def test_an_adapter_of_a_changed_base_shows_the_rank_that_was_asked_for(tmp_path: Path) -> None:
    factors = {LAYER.format(0, "q_proj"): (torch.eye(4), torch.eye(4))}
    (measured,) = measure_adapter(save(tmp_path, factors, r=4), rank=2)
    assert (measured.rank, measured.highest_rank, measured.doubled) == (2, 4, True)
    # Four equal singular values use all of the four that B A - B0 A0 can have.
    assert measured.effective_rank == pytest.approx(4)


def test_what_counts_from_a_first_update_is_suggested_half_of_what_it_uses() -> None:
    # Of 16, 7.5 are used: 3.75 of r, a quarter more is 4.7, so 8. All but 1 of 16 is full: 2 x 8.
    updates = [replace(update(name, 8, used), doubled=True) for name, used in (("a", 7.5), ("b", 15.0))]
    assert suggest_ranks(updates) == {"a": 8, "b": 16}


def test_the_line_of_the_terminal_compares_with_the_rank_that_the_update_can_have() -> None:
    plain = [update("a", 8, 1.5), update("b", 8, 7.2)]
    assert describe_updates(plain, LoraConfig(r=8)) == (
        "adapter: effective rank 1.5 to 7.2 of 8; each layer's and a rank pattern in the report"
    )
    doubled = [replace(each, doubled=True, effective_rank=12.0) for each in plain]
    assert describe_updates(doubled, LoraConfig(r=8, init="pissa")).startswith(
        "adapter: effective rank 12.0 to 12.0 of 16 (2 r: pissa counts from a first update); "
    )
    mixed = [update("a", 4, 1.5), update("b", 8, 7.2)]
    assert "of 4 to 8; " in describe_updates(mixed, LoraConfig(r=8))
    assert describe_updates([], LoraConfig(method="ia3")).endswith("to measure for lora.method=ia3")


def test_gradient_scale_is_the_corrected_second_moment() -> None:
    name = "base_model.model." + LAYER.format(0, "q_proj")
    moments = {
        f"{name}.lora_A.default.weight": torch.full((2, 3), 0.04 * (1 - 0.9**5)),
        f"{name}.lora_B.default.weight": torch.full((3, 2), 0.16 * (1 - 0.9**5)),
        "base_model.model.lm_head.weight": torch.ones(2),
    }
    # Mean of 0.04 and 0.16 is 0.1.
    scales = gradient_scales(moments, beta=0.9, step=5)
    assert scales == {LAYER.format(0, "q_proj"): pytest.approx(math.sqrt(0.1))}


def test_ranks_are_suggested_above_what_is_used() -> None:
    used = {"a": 1.5, "b": 3.5, "c": 7.5, "d": 0.0}
    suggested = suggest_ranks([update(name, 8, effective) for name, effective in used.items()])
    # 1.5 x 1.25 -> 2; 3.5 x 1.25 = 4.4 -> 8; 7.5 is above 0.9 x 8 -> 16; no update -> 1
    assert suggested == {"a": 2, "b": 8, "c": 16, "d": 1}


def test_a_pattern_gives_each_layer_its_rank_when_peft_reads_it() -> None:
    suggested = {
        LAYER.format(layer, kind): 4 if kind == "q_proj" and layer in (1, 11) else 16 if layer == 2 else 8
        for layer in range(12)
        for kind in ("q_proj", "k_proj")
    }
    common, pattern = to_pattern(suggested)
    assert common == 8
    assert len(pattern) == 3
    for name, rank in suggested.items():
        assert pattern.get(get_pattern_key(list(pattern), name), common) == rank


def test_the_suggestion_can_be_pasted_as_config() -> None:
    # 3 x 1.25 = 3.75 -> 4; 6 x 1.25 = 7.5 -> 8
    used = {0: 3.0, 1: 6.0, 2: 6.0}
    text = pattern_yaml([update(LAYER.format(n, "q_proj"), 16, effective) for n, effective in used.items()])
    assert yaml.safe_load(text) == {
        "lora": {
            "r": 8,
            "alpha": 16.0,
            "rank_pattern": {r"layers\.0\.self_attn\.q_proj": 4},
            "alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 8.0},
        }
    }


def test_the_suggestion_keeps_the_scale_that_each_layer_has() -> None:
    # 4 of rank 16 for two layers, 8 for another; the last has a scale of its own.
    updates = [
        update("layers.0.up", 16, 3.0, scale=0.5),
        update("layers.1.up", 16, 3.0, scale=0.5),
        update("layers.2.up", 16, 6.0, scale=0.5),
        update("layers.3.up", 16, 3.0, scale=1.5),
    ]
    assert yaml.safe_load(pattern_yaml(updates))["lora"] == {
        "r": 4,
        "alpha": 2.0,
        "rank_pattern": {r"layers\.2\.up": 8, r"layers\.3\.up": 4},
        "alpha_pattern": {r"layers\.2\.up": 4.0, r"layers\.3\.up": 6.0},
    }


def test_the_suggestion_keeps_the_scale_of_rslora() -> None:
    # alpha 6 of rank 16 is scaled by 6 / 4; at rank 4 that takes alpha 3, as 3 / 2 is the same.
    group = yaml.safe_load(pattern_yaml([update("up", 16, 3.0, scale=1.5, rslora=True)]))["lora"]
    assert (group["r"], group["alpha"], group["rslora"]) == (4, 3.0, True)


def test_no_rank_is_suggested_above_the_width_of_its_layer() -> None:
    # 23.5 of 24 would want 48 and so 64.
    assert suggest_ranks([update("narrow", 24, 23.5, width=32)]) == {"narrow": 32}


def test_other_methods_have_no_low_rank_update(tmp_path: Path) -> None:
    for method in ("ia3", "vera", "prompt"):
        adapted(method, tmp_path / method, 0.1)
        assert measure_adapter(tmp_path / method, rank=4) == []


@pytest.mark.parametrize("kept", [3, 0])
def test_the_update_of_adalora_is_what_its_layer_adds(tmp_path: Path, kept: int) -> None:
    model = adapted("adalora", tmp_path, 0.1, kept)
    measured = {each.name: each for each in measure_adapter(tmp_path, rank=4)}
    assert set(measured) == {f"model.layers.{number}.self_attn.q_proj" for number in range(2)}
    for name, each in measured.items():
        delta = model.get_base_model().get_submodule(name).get_delta_weight("default").detach().double()
        assert each.norm == pytest.approx(float(torch.linalg.matrix_norm(delta)), rel=1e-4)
        # Rank 6 at first, of which the pattern keeps some in the first layer.
        assert each.rank == (kept if ".0." in name else 6)
        assert each.scale == pytest.approx(5 / 6)


def test_the_update_of_embeddings_is_measured(tmp_path: Path) -> None:
    model = adapted("lora", tmp_path, 0.1)
    (measured,) = measure_adapter(tmp_path, rank=4, gradient_rms={"model.embed_tokens": 0.5})
    layer = model.get_base_model().get_submodule("model.embed_tokens")
    delta = layer.get_delta_weight("default").detach().double()
    assert measured.norm == pytest.approx(float(torch.linalg.matrix_norm(delta)), rel=1e-4)
    assert (measured.name, measured.rank, measured.width) == ("model.embed_tokens", 4, 32)
    assert measured.gradient_rms == 0.5


def test_gradients_of_embeddings_and_of_adalora_count() -> None:
    moments = {
        "base_model.model.model.embed_tokens.lora_embedding_A.default": torch.full((2, 3), 0.04 * 0.5),
        "base_model.model.up.lora_E.default": torch.full((2, 1), 0.09 * 0.5),
    }
    # 1 - 0.5 of one step.
    assert gradient_scales(moments, beta=0.5, step=1) == {
        "model.embed_tokens": pytest.approx(0.2),
        "up": pytest.approx(0.3),
    }


def adapted(method: str, folder: Path, std: float, kept: int | None = None) -> PeftModel:
    """Saves a random adapter of a tiny model; `kept` of AdaLoRA's triplets are left in the first layer."""
    torch.manual_seed(0)
    targets = {"lora": ["embed_tokens"], "adalora": ["q_proj"]}.get(method, "auto")
    lora = LoraConfig(method=method, r=4, alpha=5.0, targets=targets)
    model = attach_adapter(build("llama"), lora, 0, AdapterContext(total_steps=10))
    for parameter in trainable(model).values():
        torch.nn.init.normal_(parameter, std=std)
    if kept is not None:
        first = "model.layers.0.self_attn.q_proj"
        layer = model.get_base_model().get_submodule(first)
        mask = [number < kept for number in range(6)]
        with torch.no_grad():
            layer.lora_E["default"][~torch.tensor(mask)] = 0
        model.peft_config["default"].rank_pattern = {f"{first}.lora_E.default": mask}
    model.save_pretrained(
        str(folder),
        state_dict={**fixed_projections(model), **{name: value for name, value in model.named_parameters()}},
        save_embedding_layers=False,
    )
    return model
