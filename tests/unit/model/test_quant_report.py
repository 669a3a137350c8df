"""Bytes and errors of quantized layers."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from bitsandbytes.nn import Int8Params
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt, Params4bit
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from loralab.config.model import ModelConfig, QuantConfig
from loralab.model import quant_report
from loralab.model.load import load_base
from loralab.model.quant_report import (
    LayerStorage,
    by_kind,
    layer_storage,
    other_storage,
    relative_errors,
    storage_table,
    total_storage,
)
from loralab.model.quantize import linear_layers, quantization_config

CPU = torch.device("cpu")
LEVELS = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
])  # fmt: skip
"""NormalFloat 4, arXiv:2305.14314, appendix E."""


class Bare(nn.Module):
    """One layer, and what the report asks of a model."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2, 3, dtype=torch.bfloat16)
        self.layer = layer

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> None:
        return None


def load(folder: Path, name: str, dtype: torch.dtype = torch.float32, **options: object) -> PreTrainedModel:
    quant = QuantConfig(name=name, **options)
    return AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=dtype, quantization_config=quantization_config(quant, dtype), device_map={"": CPU}
    )


def round_to_nf4(weight: Tensor) -> Tensor:
    """Rounds each number to the nearest level times the largest absolute number of its 64."""
    blocks = weight.float().reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    nearest = ((blocks / scale)[..., None] - LEVELS).abs().argmin(dim=-1)
    return (LEVELS[nearest] * scale).reshape(weight.shape)


@pytest.mark.parametrize(("double", "bits"), [(True, 4.127), (False, 4.5)])
def test_bits_of_a_large_nf4_layer(double: bool, bits: float) -> None:
    # 4 + 8/64 + 32/(64 x 256) = 4.12695, or 4 + 32/64; the tables of the layer add 0.0005.
    values = torch.zeros(4096, 4096)
    values[:, ::64] = 1.0
    layer = Linear4bit(4096, 4096, bias=False, device="meta")
    layer.weight = Params4bit(values, compress_statistics=double, quant_type="nf4").to(CPU)
    (row,) = layer_storage(Bare(layer))
    assert row.bits_per_value == pytest.approx(bits, abs=1e-3)
    assert row.num_values == 4096 * 4096
    assert row.bytes_full == 2 * 4096 * 4096
    absmax = 4096 * 64
    state = absmax + absmax // 256 * 4 + 16 * 4 + 256 * 4 + 4 if double else absmax * 4 + 16 * 4
    assert row.bytes_stored == 4096 * 4096 // 2 + state


def test_int8_counts_a_scale_for_each_row_before_and_after_a_forward() -> None:
    layer = Linear8bitLt(64, 32, bias=False, has_fp16_weights=False)
    layer.weight = Int8Params(torch.randn(32, 64), requires_grad=False).to("cpu")
    model = Bare(layer)
    for _ in range(2):
        (row,) = layer_storage(model)
        assert (row.scheme, row.bytes_stored, row.bytes_full) == ("int8", 32 * 64 + 32 * 4, 32 * 64 * 2)
        assert row.bits_per_value == 8 + 8 * 4 / 64
        layer(torch.ones(1, 64))


def test_errors_are_those_of_an_independent_nf4(tiny_model_dir: Path) -> None:
    found = relative_errors(load(tiny_model_dir, "nf4", double_quant=False))
    full = dict(linear_layers(load(tiny_model_dir, "none")))
    assert list(found) == list(full)
    for name, layer in full.items():
        weight = layer.weight.detach()
        expected = (weight - round_to_nf4(weight)).norm() / weight.norm()
        assert found[name] == pytest.approx(float(expected), rel=1e-5)


def test_schemes_stand_in_the_order_of_their_precision(tiny_model_dir: Path) -> None:
    errors = {name: relative_errors(load(tiny_model_dir, name)) for name in ("none", "int8", "nf4", "fp4")}
    for name in errors["none"]:
        assert errors["none"][name] == 0
        assert 0 < errors["int8"][name] < errors["nf4"][name] < errors["fp4"][name] < 0.2


def test_int8_errors_are_those_of_rounding_by_row(tiny_model_dir: Path) -> None:
    found = relative_errors(load(tiny_model_dir, "int8"))
    name, layer = next(linear_layers(load(tiny_model_dir, "none")))
    # The library rounds weights to float16 first.
    weight = layer.weight.detach().half().float()
    scale = weight.abs().amax(dim=1, keepdim=True)
    rounded = (weight / scale * 127).round() * scale / 127
    full = layer.weight.detach()
    expected = (full - rounded).norm() / full.norm()
    assert found[name] == pytest.approx(float(expected), rel=1e-3)


def test_shards_give_the_same_errors(tiny_model_dir: Path, tmp_path: Path) -> None:
    expected = relative_errors(load(tiny_model_dir, "nf4"))
    load(tiny_model_dir, "none").save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert relative_errors(load(tmp_path, "nf4")) == expected


def test_a_checkpoint_without_the_prefix_is_found(tiny_model_dir: Path, tmp_path: Path) -> None:
    expected = relative_errors(load(tiny_model_dir, "nf4"))
    load(tiny_model_dir, "none").base_model.save_pretrained(tmp_path)
    assert relative_errors(load(tmp_path, "nf4")) == expected


def test_what_cannot_be_compared_has_no_error(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = load(tiny_model_dir, "nf4")
    model.save_pretrained(tmp_path)
    # The tensors on disk are packed now: nothing to compare with.
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, device_map={"": CPU})
    assert relative_errors(again) == {}
    assert {row.relative_error for row in layer_storage(again)} == {None}
    again.name_or_path = str(tmp_path.parent)
    assert relative_errors(again) == {}


def test_transposed_layers_are_compared_as_they_are_stored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_embd=64, n_layer=1, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    names = [f"transformer.h.0.{name}" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    for name in ("none", "nf4", "int8"):
        errors = relative_errors(load(tmp_path, name))
        assert list(errors) == names
        # Two unrelated matrices would differ by the root of 2.
        assert max(errors.values()) < 0.2


def test_tied_weights_are_counted_once() -> None:
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=4,
        intermediate_size=6,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    other = other_storage(model)
    # The embedding, which is the head too, and three norms.
    assert (other.name, other.num_values, other.bytes_stored) == ("other", 10 * 4 + 3 * 4, 4 * (40 + 12))
    whole = total_storage("model", [*layer_storage(model), other])
    assert whole.num_values == sum(parameter.numel() for parameter in model.parameters())
    assert whole.bits_per_value == 32


def test_layers_are_grouped_by_kind_and_scheme() -> None:
    rows = [
        LayerStorage("a.0.q", "nf4", 10, 20, 6, 0.1),
        LayerStorage("a.0.k", "nf4", 4, 8, 3, None),
        LayerStorage("a.1.q", "nf4", 10, 20, 4, 0.3),
        LayerStorage("a.2.q", "bfloat16", 10, 20, 20, 0.0),
    ]
    first, second, third = by_kind(rows)
    assert (first.kind, first.scheme, first.num_layers, first.num_values) == ("q", "nf4", 2, 20)
    assert (first.bytes_full, first.bytes_stored, first.bits_per_value) == (40, 10, 4.0)
    assert (first.error_min, first.error_mean, first.error_max) == (0.1, 0.2, 0.3)
    assert (second.kind, second.error_mean) == ("k", None)
    assert (third.kind, third.scheme, third.bits_per_value) == ("q", "bfloat16", 16.0)


def test_the_table_of_a_run_adds_up_and_is_json(tiny_model_dir: Path) -> None:
    full, model = load(tiny_model_dir, "none"), load(tiny_model_dir, "nf4")
    table = json.loads(json.dumps(storage_table(model)))
    assert [row["name"] for row in table] == [
        *(f"{kind}_proj x 2" for kind in ("q", "k", "v", "o", "gate", "up", "down")),
        "other",
    ]
    assert sum(row["num_values"] for row in table) == sum(p.numel() for p in full.parameters())
    query, other = table[0], table[-1]
    assert (query["scheme"], query["num_layers"], query["bytes_full"]) == ("nf4", 2, 2 * 64 * 64 * 4)
    # Codes, 64 constants of 8 bits and one of 32, tables of 16 and 256 numbers, and an offset.
    assert query["bytes_stored"] == 2 * (64 * 64 // 2 + 64 + 4 + 16 * 4 + 256 * 4 + 4)
    assert 0.05 < query["relative_error"] < 0.15
    assert (other["scheme"], other["relative_error"], other["bits_per_value"]) == ("float32", None, 32.0)


def test_a_hub_model_is_compared_with_the_commit_it_came_from(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setattr(huggingface_hub.constants, name, str(tmp_path))
    commit = "c" * 40
    snapshot = tmp_path / "models--owner--tiny" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(tiny_model_dir / "model.safetensors")
    (snapshot / "config.json").symlink_to(tiny_model_dir / "config.json")
    expected = relative_errors(load(tiny_model_dir, "nf4"))
    assert len(expected) == 14
    config = ModelConfig(path="owner/tiny", revision=commit)
    model = load_base(config, QuantConfig(name="nf4"), CPU, torch.float32)
    assert model.name_or_path == "owner/tiny"
    assert relative_errors(model) == expected
    # Its main branch was never downloaded.
    model.hub_revision = None
    assert relative_errors(model) == {}


def test_the_table_of_a_large_model_has_no_errors(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model_dir, "nf4")
    size = sum(row["num_values"] for row in storage_table(model))
    monkeypatch.setattr(quant_report, "MOST_COMPARED_VALUES", size)
    assert storage_table(model)[0]["relative_error"] > 0
    monkeypatch.setattr(quant_report, "MOST_COMPARED_VALUES", size - 1)
    assert {row["relative_error"] for row in storage_table(model)} == {None}


def test_a_base_of_another_library_has_no_table() -> None:
    config = LlamaConfig(
        vocab_size=10, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=1
    )
    model = LlamaForCausalLM(config)
    assert len(storage_table(model)) == 8
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    assert storage_table(model) == []
