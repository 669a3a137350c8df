import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file
from tests.unit.model.tiny_models import build
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.errors import ConfigError, ModelError
from loralab.model.adapters.calibrated import covariances
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.starts import find_starts, olora_pair, orthogonal_pair, pissa_pair
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, save_adapter, trainable

NAME = "model.layers.0.mlp.up_proj"


def calibration() -> Iterator[dict[str, Tensor]]:
    ids = torch.randint(3, 60, (4, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    yield {"input_ids": ids, "attention_mask": mask}


def test_pissa_is_the_best_approximation_of_the_rank() -> None:
    weight = torch.randn(12, 7)
    pair = pissa_pair(weight, 3, scale=2.0)
    values = torch.linalg.svdvals(weight)
    rest = weight - 2.0 * pair.up @ pair.down
    torch.testing.assert_close(torch.linalg.svdvals(rest)[:4], values[3:], rtol=1e-4, atol=1e-5)
    # Both factors carry the roots of the singular values.
    torch.testing.assert_close(pair.down.norm(dim=1) * 2.0**0.5, values[:3].sqrt(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pair.up.norm(dim=0) * 2.0**0.5, values[:3].sqrt(), rtol=1e-4, atol=1e-5)


def test_olora_has_orthonormal_columns_and_leaves_the_weight_without_them() -> None:
    weight = torch.randn(9, 6)
    pair = olora_pair(weight, 2, scale=1.0)
    torch.testing.assert_close(pair.up.T @ pair.up, torch.eye(2), rtol=0, atol=1e-5)
    rest = weight - pair.up @ pair.down
    torch.testing.assert_close(pair.up.T @ rest, torch.zeros(2, 6), rtol=0, atol=1e-5)


def test_an_orthogonal_start_is_zero_in_sum_only() -> None:
    pair = orthogonal_pair(torch.nn.Linear(6, 9), 4)
    assert pair.down.shape == (4, 6)
    assert pair.up.shape == (9, 4)
    assert pair.down.norm() > 0.1
    assert pair.up.norm() > 0.1
    torch.testing.assert_close(pair.up @ pair.down, torch.zeros(9, 6), rtol=0, atol=1e-6)


def inputs_of(model: PreTrainedModel, name: str) -> Tensor:
    """Inputs of a layer at the real tokens of the calibration rows: [tokens, in]."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    (batch,) = calibration()
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return seen[0][batch["attention_mask"].bool()]


def test_covariances_leave_padding_out() -> None:
    model = build("llama")
    inputs = inputs_of(model, NAME)
    assert len(inputs) == 4 * 12 - 5
    (found,) = covariances(model, [NAME], [NAME], list(calibration())).values()
    torch.testing.assert_close(found, inputs.T @ inputs / len(inputs), rtol=1e-4, atol=1e-5)


def test_corda_keeps_what_the_rows_need_better_than_pissa() -> None:
    model, context = build("llama"), AdapterContext(calibration=calibration)
    inputs, weight = inputs_of(model, NAME), model.get_submodule(NAME).weight.detach()
    errors = {}
    for init in ("corda", "pissa"):
        pair = find_starts(model, [NAME], LoraConfig(r=8, alpha=16.0, init=init), context)[NAME]
        errors[init] = float((inputs @ (weight - 2.0 * pair.up @ pair.down).T).norm())
    assert errors["corda"] < 0.8 * errors["pissa"]


def test_eva_spans_the_directions_in_which_the_inputs_vary() -> None:
    model = build("llama")
    inputs = inputs_of(model, NAME)
    context = AdapterContext(calibration=calibration)
    pair = find_starts(model, [NAME], LoraConfig(r=4, init="eva"), context)[NAME]
    assert torch.count_nonzero(pair.up) == 0
    _, _, right = torch.linalg.svd(inputs - inputs.mean(dim=0), full_matrices=False)
    cosines = torch.linalg.svdvals(pair.down @ right[:4].T)
    torch.testing.assert_close(cosines, torch.ones(4), rtol=0, atol=1e-3)


def test_measured_starts_say_what_they_miss() -> None:
    model = build("llama")
    for init in ("eva", "corda"):
        with pytest.raises(ConfigError, match=f"lora.init={init} measures training rows, and there are none"):
            find_starts(model, [NAME], LoraConfig(r=4, init=init), AdapterContext())
    short = AdapterContext(
        calibration=lambda: [{key: value[:1, :4] for key, value in next(calibration()).items()}]
    )
    with pytest.raises(
        ConfigError, match=r"more than 4 tokens, the rank.*Use a lower lora\.r, longer rows, or"
    ):
        find_starts(model, [NAME], LoraConfig(r=4, init="eva"), short)


@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
def test_loftq_takes_the_largest_part_of_the_error(tiny_model_dir: Path, scheme: str) -> None:
    cpu = torch.device("cpu")
    full = load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name="none"), cpu, torch.float32)
    base = load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name=scheme), cpu, torch.float32)
    lora = LoraConfig(r=8, alpha=16.0, init="loftq")
    pair = find_starts(base, [NAME], lora, AdapterContext(base_dir=str(tiny_model_dir)))[NAME]
    weight = full.get_submodule(NAME).weight
    # What a layer multiplies the unit vectors by is its weight.
    error = weight - base.get_submodule(NAME)(torch.eye(64)).T
    rest = error - 2.0 * pair.up @ pair.down
    expected = torch.linalg.svdvals(error)[8:].square().sum().sqrt()
    torch.testing.assert_close(rest.norm(), expected, rtol=1e-3, atol=1e-6)


def test_loftq_says_what_it_misses(tiny_model_dir: Path, tmp_path: Path) -> None:
    cpu, lora = torch.device("cpu"), LoraConfig(r=8, init="loftq")
    base = load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name="nf4"), cpu, torch.float32)
    with pytest.raises(ConfigError, match="needs the folder of the full-precision weights"):
        find_starts(base, [NAME], lora, AdapterContext())
    with pytest.raises(ModelError, match="reads full weights from safetensors files"):
        find_starts(base, [NAME], lora, AdapterContext(base_dir=str(tmp_path)))
    with pytest.raises(ConfigError, match="corrects layers in 4 bits, and no adapted layer is"):
        find_starts(build("llama"), [NAME], lora, AdapterContext(base_dir=str(tmp_path)))
    with pytest.raises(ModelError, match=f"{NAME} is quantized"):
        find_starts(base, [NAME], LoraConfig(r=8, init="pissa"), AdapterContext())


@pytest.mark.parametrize("rslora", [False, True])
def test_an_offset_start_is_saved_as_a_plain_adapter_of_twice_the_rank(
    rslora: bool, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    lora = LoraConfig(
        r=4, alpha=6.0, init="pissa", rslora=rslora, rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3.0}
    )
    adapted = attach_adapter(
        build("gpt2"), LoraConfig(r=4, init="pissa"), 0
    )  # Conv1D has its weight transposed.
    ids = torch.tensor([[1, 3, 9, 5]])
    torch.testing.assert_close(adapted(ids).logits, build("gpt2")(ids).logits, rtol=0, atol=1e-5)
    adapted = attach_adapter(build("llama"), lora, 0)
    weights = {name: values.detach() + 0.1 for name, values in trainable(adapted).items()}
    save_adapter(adapted, tokenizer, weights, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    growth = 2**0.5 if rslora else 2
    assert config["r"] == 8
    assert config["rank_pattern"] == {"q_proj": 4}
    assert config["lora_alpha"] == pytest.approx(6 * growth)
    assert config["alpha_pattern"] == {"v_proj": pytest.approx(3 * growth)}
    key = f"base_model.model.{NAME}"
    down, up = saved[f"{key}.lora_A.weight"], saved[f"{key}.lora_B.weight"]
    assert down.shape == (8, 32)
    first = find_starts(build("llama"), [NAME], lora, AdapterContext())[NAME]
    # The saved update is B A - B0 A0.
    expected = (first.up + 0.1) @ (first.down + 0.1) - first.up @ first.down
    torch.testing.assert_close(up @ down, expected, rtol=1e-4, atol=1e-5)


def test_loftq_reads_the_commit_that_the_base_came_from(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--tiny" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(tiny_model_dir / "model.safetensors")
    cpu, lora = torch.device("cpu"), LoraConfig(r=8, init="loftq")
    base = load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name="nf4"), cpu, torch.float32)
    with pytest.raises(ModelError, match="needs the full weights of owner/tiny, which are not here"):
        find_starts(base, [NAME], lora, AdapterContext(base_dir="owner/tiny"))
    base.hub_revision = "c" * 40
    assert list(find_starts(base, [NAME], lora, AdapterContext(base_dir="owner/tiny"))) == [NAME]
