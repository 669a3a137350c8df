"""What each quantization scheme does to a model: size, error and perplexity, one scheme loaded at a time."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from transformers import PreTrainedModel

from loralab import metrics
from loralab.config.model import ModelConfig, QuantConfig
from loralab.data.collate import MicroBatch
from loralab.losses.sft import supervised_positions, token_nll
from loralab.model.head import hidden_states, projection
from loralab.model.load import load_base
from loralab.model.quant_report import (
    LayerStorage,
    by_kind,
    layer_storage,
    other_storage,
    relative_errors,
    total_storage,
)

FULL_PRECISION = "none"


@dataclass(frozen=True)
class SchemeReport:
    """One scheme on one model."""

    scheme: str
    """Name in the group `quant`."""
    layers: list[LayerStorage]
    """Every linear layer but the output head."""
    other: LayerStorage
    """All other parameters."""
    nll: float | None = None
    """Mean negative log likelihood of the supervised tokens in nats; None without rows."""

    @property
    def linear(self) -> LayerStorage:
        """The linear layers together."""
        return total_storage("linear layers", self.layers)

    @property
    def whole(self) -> LayerStorage:
        """The whole model."""
        return total_storage("model", [*self.layers, self.other])

    @property
    def perplexity(self) -> float | None:
        """The exponential of `nll`."""
        return None if self.nll is None else metrics.perplexity(self.nll)

    def to_dict(self, reference: "SchemeReport | None") -> dict[str, Any]:
        """Returns everything as it stands in a JSON file.

        Args:
            reference: Full precision, that `perplexity_rise` is a share of.
        """
        return {
            "scheme": self.scheme,
            "bits_per_value_linear": self.linear.bits_per_value,
            "bits_per_value_model": self.whole.bits_per_value,
            "bytes_full": self.whole.bytes_full,
            "bytes_stored": self.whole.bytes_stored,
            "nll": self.nll,
            "perplexity": self.perplexity,
            "perplexity_rise": perplexity_rise(self, reference),
            "kinds": [asdict(row) for row in by_kind([*self.layers, self.other])],
            "layers": [{**asdict(row), "bits_per_value": row.bits_per_value} for row in self.layers],
        }


def report_schemes(
    model: ModelConfig,
    quants: Sequence[QuantConfig],
    placement: tuple[torch.device, torch.dtype],
    batches: Iterable[MicroBatch] | None,
) -> Iterator[SchemeReport]:
    """Loads the model in one scheme after the other and measures it.

    Args:
        model: Which model, from an unquantized checkpoint.
        quants: The schemes.
        placement: Device and compute dtype.
        batches: Rows to measure the perplexity on, gone through once for each scheme; None measures none.

    Raises:
        ModelError: The model cannot be loaded.
    """
    for quant in quants:
        base = load_base(model, quant, *placement).eval()
        layers = layer_storage(base, relative_errors(base))
        nll = None if batches is None else base_nll(base, batches)
        yield SchemeReport(quant.name, layers, other_storage(base), nll)
        # Before the next scheme loads, and without waiting for the cycles that hooks make.
        del base
        gc.collect()


@torch.inference_mode()
def base_nll(model: PreTrainedModel, batches: Iterable[MicroBatch]) -> float:
    """Returns the mean negative log likelihood over the supervised tokens, in nats.

    Args:
        model: A base without adapter, in evaluation mode.
        batches: Padded examples of one source, on any device.
    """
    total, count = 0.0, 0
    for batch in batches:
        moved = move_data_to_device(batch, model.device)
        chosen = supervised_positions(moved.labels)
        hidden = hidden_states(model, moved)[:, :-1][chosen]
        losses = token_nll(hidden, moved.labels[:, 1:][chosen], projection(model))
        total, count = total + float(losses.double().sum()), count + len(losses)
    return total / count


def perplexity_rise(report: SchemeReport, reference: SchemeReport | None) -> float | None:
    """Returns by which share the perplexity lies above full precision; None where one was not measured."""
    if reference is None or report.perplexity is None or reference.perplexity is None:
        return None
    return report.perplexity / reference.perplexity - 1
