"""Schemes compared on one model."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from loralab.config.model import ModelConfig, QuantConfig
from loralab.data.collate import MicroBatch
from loralab.data.masking import IGNORE_INDEX
from loralab.evaluation.quantization import SchemeReport, base_nll, perplexity_rise, report_schemes
from loralab.model.load import load_base
from loralab.model.quant_report import LayerStorage

PLACEMENT = (torch.device("cpu"), torch.float32)


def batch(rows: list[list[int]], num_ignored: int) -> MicroBatch:
    ids = torch.tensor(rows)
    labels = ids.clone()
    labels[:, :num_ignored] = IGNORE_INDEX
    return MicroBatch(ids, torch.ones_like(ids), labels)


BATCHES = [batch([[5, 9, 11, 3], [8, 2, 7, 6]], 2), batch([[4, 10, 12]], 1)]


def make_report(scheme: str, nll: float | None) -> SchemeReport:
    layers = [LayerStorage("a.q", scheme, 100, 200, 50, 0.1), LayerStorage("a.k", scheme, 20, 40, 40)]
    return SchemeReport(scheme, layers, LayerStorage("other", "bfloat16", 40, 80, 80), nll)


def test_the_mean_is_over_supervised_tokens_of_all_batches(tiny_model_dir: Path) -> None:
    model = load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name="none"), *PLACEMENT).eval()
    losses = []
    with torch.no_grad():
        for each in BATCHES:
            for ids, labels in zip(each.input_ids, each.labels, strict=True):
                logits = model(input_ids=ids[None]).logits[0]
                losses += [
                    F.cross_entropy(logits[place - 1], ids[place]).item()
                    for place in range(1, len(ids))
                    if labels[place] != IGNORE_INDEX
                ]
    assert len(losses) == 2 + 2 + 2
    assert base_nll(model, BATCHES) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_each_scheme_is_loaded_and_measured_in_turn(tiny_model_dir: Path) -> None:
    quants = [QuantConfig(name=name) for name in ("none", "int8", "nf4")]
    model = ModelConfig(path=str(tiny_model_dir))
    full, int8, nf4 = report_schemes(model, quants, PLACEMENT, BATCHES)
    assert [report.scheme for report in (full, int8, nf4)] == ["none", "int8", "nf4"]
    assert full.whole.bytes_stored == full.whole.bytes_full > int8.whole.bytes_stored > nf4.whole.bytes_stored
    assert {layer.relative_error for layer in full.layers} == {0.0}
    assert all(layer.relative_error for layer in nf4.layers)
    assert full.nll is not None
    assert int8.nll == pytest.approx(full.nll, abs=0.05)
    assert len({full.nll, int8.nll, nf4.nll}) == 3


def test_without_rows_no_perplexity(tiny_model_dir: Path) -> None:
    model = ModelConfig(path=str(tiny_model_dir))
    (report,) = report_schemes(model, [QuantConfig(name="nf4")], PLACEMENT, None)
    assert (report.nll, report.perplexity, perplexity_rise(report, report)) == (None, None, None)


def test_the_rise_is_a_share_of_full_precision() -> None:
    full, worse = make_report("none", math.log(4.0)), make_report("nf4", math.log(5.0))
    assert perplexity_rise(worse, full) == pytest.approx(0.25)
    assert perplexity_rise(full, full) == 0
    assert perplexity_rise(worse, None) is None


def test_the_written_figures_hold_totals_kinds_and_layers() -> None:
    found = json.loads(json.dumps(make_report("nf4", math.log(2.0)).to_dict(make_report("none", 0.0))))
    assert found["bits_per_value_linear"] == 8 * 90 / 120
    assert found["bits_per_value_model"] == 8 * 170 / 160
    assert (found["bytes_full"], found["bytes_stored"]) == (320, 170)
    assert found["perplexity"] == pytest.approx(2.0)
    assert found["perplexity_rise"] == pytest.approx(1.0)
    assert [row["kind"] for row in found["kinds"]] == ["q", "k", "other"]
    assert found["layers"][0]["name"] == "a.q"
    assert found["layers"][0]["bits_per_value"] == 4.0
