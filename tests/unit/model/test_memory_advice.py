from dataclasses import replace

import pytest
import torch

from loralab.config.model import LoraConfig, QuantConfig
from loralab.errors import ConfigError
from loralab.model.memory_advice import Advice, advise, check_memory, resized
from loralab.model.memory_request import MemoryEstimate, MemoryRequest

WEIGHTS = {"none": 1000, "int8": 500, "nf4": 300}
REQUEST = MemoryRequest(
    QuantConfig("none"), LoraConfig(r=16), torch.bfloat16, rows=8, width=1000, num_supervised=800,
    checkpointing=False,
)  # fmt: skip
GIB = 2**30


def estimate_for(request: MemoryRequest) -> MemoryEstimate:
    """Weights by scheme, 10 for each rank, 1 for each 10 tokens, a tenth of that with checkpointing."""
    tokens = request.rows * request.width // 10
    return MemoryEstimate({
        "quantized weights": WEIGHTS[request.quant.name],
        "adapters": 10 * request.lora.r,
        "activations": tokens // 10 if request.checkpointing else tokens,
    })  # fmt: skip


def test_the_mildest_use_of_each_remedy_that_fits_is_advised_best_first():
    # 1000 + 160 + 800 do not fit into 1600; 4 rows, checkpointing, 4 bits, or half the length do.
    assert advise(REQUEST, estimate_for, 1600) == [
        Advice(("trainer.batch_size=4", "trainer.accumulation=2"), 1560, "the same steps in smaller parts"),
        Advice(("trainer.gradient_checkpointing=true",), 1240, "about a third more time"),
        Advice(("quant=nf4",), 1260, "weights in 4 bits"),
        Advice(("data.max_length=500",), 1560, "text after 500 tokens is lost"),
    ]


def test_remedies_are_put_together_where_no_single_one_is_enough():
    # 300 + 160 + 10 is the least with one row, checkpointing and 4 bits.
    (advice,) = advise(REQUEST, estimate_for, 480)
    assert advice.peak == 470
    assert advice.overrides == (
        "trainer.batch_size=1", "trainer.accumulation=8", "trainer.gradient_checkpointing=true", "quant=nf4"
    )  # fmt: skip


def test_where_nothing_helps_nothing_is_advised():
    assert advise(REQUEST, estimate_for, 100) == []


def test_a_smaller_micro_batch_keeps_the_examples_of_a_step():
    (first, *_) = advise(replace(REQUEST, rows=6, accumulation=2), estimate_for, 1500)
    assert first.overrides == ("trainer.batch_size=3", "trainer.accumulation=4")


def test_a_resized_request_learns_the_same_share_and_its_documents_fill_it():
    packed = replace(REQUEST, rows=2, width=100, num_supervised=50, documents=(90, 10, 60, 40))
    smaller = resized(packed, 1, 100)
    assert (smaller.num_supervised, smaller.documents) == (25, (90, 10))
    shorter = resized(packed, 2, 50)
    assert shorter.documents == (50, 10, 40)
    assert resized(packed, 4, 100).documents == (90, 10, 60, 40, 90, 10, 60, 40)


def test_a_run_that_fits_passes():
    assert check_memory(REQUEST, estimate_for, 2000).peak == 1960


def test_a_run_that_does_not_fit_is_refused_with_settings_that_would():
    def large(request: MemoryRequest) -> MemoryEstimate:
        parts = estimate_for(request).parts
        return MemoryEstimate({name: size * GIB // 100 for name, size in parts.items()})

    with pytest.raises(ConfigError) as refusal:
        check_memory(REQUEST, large, 16 * GIB)
    message = str(refusal.value)
    assert (
        "needs about 19.6 GiB (quantized weights 10.0 GiB, activations 8.0 GiB, adapters 1.6 GiB)" in message
    )
    assert "may take 16.0 GiB" in message
    assert "trainer.batch_size=4 trainer.accumulation=2  (15.6 GiB; the same steps" in message


def test_a_refusal_says_when_only_a_smaller_model_would_do():
    with pytest.raises(ConfigError, match="smaller model"):
        check_memory(REQUEST, estimate_for, 100)
