from dataclasses import replace

import pytest
import torch

from loralab.config.model import LoraConfig, QuantConfig
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.errors import ConfigError
from loralab.model.memory_advice import Advice, Remedies, advise, allowed_remedies, check_memory, resized
from loralab.model.memory_request import MemoryEstimate, MemoryRequest

WEIGHTS = {"none": 1000, "int8": 500, "nf4": 300}
REQUEST = MemoryRequest(
    QuantConfig("none"), LoraConfig(r=16), torch.bfloat16, rows=8, width=1000, num_supervised=800,
    checkpointing=False,
)  # fmt: skip
GIB = 2**30
ALL = Remedies()


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
    assert advise(REQUEST, estimate_for, 1600, ALL) == [
        Advice(("trainer.batch_size=4", "trainer.accumulation=2"), 1560, "the same steps in smaller parts"),
        Advice(("trainer.gradient_checkpointing=true",), 1240, "about a third more time"),
        Advice(("quant=nf4",), 1260, "weights in 4 bits"),
        Advice(("data.max_length=500",), 1560, "rows above 500 tokens are dropped or cut (data.over_length)"),
    ]


def test_remedies_are_put_together_where_no_single_one_is_enough():
    # 300 + 160 + 10 is the least with one row, checkpointing and 4 bits.
    (advice,) = advise(REQUEST, estimate_for, 480, ALL)
    assert advice.peak == 470
    assert advice.overrides == (
        "trainer.batch_size=1", "trainer.accumulation=8", "trainer.gradient_checkpointing=true", "quant=nf4"
    )  # fmt: skip


def offloaded(request: MemoryRequest) -> MemoryEstimate:
    """As `estimate_for`; offloading leaves a hundredth of the activations."""
    parts = estimate_for(request).parts
    if request.checkpointing and request.offload:
        parts["activations"] //= 10
    return MemoryEstimate(parts)


def test_offloading_is_advised_where_checkpointing_alone_does_not_do():
    # 1000 + 160 + 80 with checkpointing, 1000 + 160 + 8 with offloading too.
    gpu = Remedies("auto", offloading=True, four_bits=False, smaller_rank=False)
    (advice, *_) = advise(REQUEST, offloaded, 1200, gpu)
    assert advice == Advice(
        ("trainer.gradient_checkpointing=true", "trainer.offload_activations=true"), 1168,
        "about a third more time, and layer inputs in host memory",
    )  # fmt: skip
    (advice, *_) = advise(replace(REQUEST, checkpointing=True), offloaded, 1200, gpu)
    assert advice.overrides == ("trainer.offload_activations=true",)
    # Where the milder of the two is enough, it alone is.
    overrides = [each.overrides for each in advise(REQUEST, offloaded, 1300, gpu)]
    assert overrides[0] == ("trainer.gradient_checkpointing=true",)
    assert not any("trainer.offload_activations=true" in words for words in overrides)


def test_offloading_is_not_advised_without_a_gpu_or_twice():
    assert allowed_remedies(TrainConfig(), False, "cuda").offloading
    assert not allowed_remedies(TrainConfig(), False, "cpu").offloading
    assert not allowed_remedies(TrainConfig(lora=LoraConfig(method="prefix")), False, "cuda").offloading
    moved = replace(REQUEST, checkpointing=True, offload=True)
    for request, remedies in ((REQUEST, ALL), (moved, Remedies(offloading=True))):
        words = {word for each in advise(request, offloaded, 900, remedies) for word in each.overrides}
        assert "trainer.offload_activations=true" not in words


def test_where_nothing_helps_nothing_is_advised():
    assert advise(REQUEST, estimate_for, 100, ALL) == []


def test_a_smaller_micro_batch_keeps_the_examples_of_a_step():
    (first, *_) = advise(replace(REQUEST, rows=6, accumulation=2), estimate_for, 1500, ALL)
    assert first.overrides == ("trainer.batch_size=3", "trainer.accumulation=4")


def test_a_resized_request_learns_the_same_share_and_its_documents_fill_it():
    packed = replace(REQUEST, rows=2, width=100, num_supervised=50, documents=(90, 10, 60, 40))
    smaller = resized(packed, 1, 100)
    assert (smaller.num_supervised, smaller.documents) == (25, (90, 10))
    shorter = resized(packed, 2, 50)
    assert shorter.documents == (50, 10, 40)
    assert resized(packed, 4, 100).documents == (90, 10, 60, 40, 90, 10, 60, 40)


def test_a_run_that_fits_passes():
    assert check_memory(REQUEST, estimate_for, 2000, ALL).peak == 1960


def test_a_run_that_does_not_fit_is_refused_with_settings_that_would():
    def large(request: MemoryRequest) -> MemoryEstimate:
        parts = estimate_for(request).parts
        return MemoryEstimate({name: size * GIB // 100 for name, size in parts.items()})

    with pytest.raises(ConfigError) as refusal:
        check_memory(REQUEST, large, 16 * GIB, ALL)
    message = str(refusal.value)
    assert (
        "needs about 19.6 GiB (quantized weights 10.0 GiB, activations 8.0 GiB, adapters 1.6 GiB)" in message
    )
    assert "may take 16.0 GiB" in message
    assert "trainer.batch_size=4 trainer.accumulation=2  (15.6 GiB; the same steps" in message


def test_a_refusal_says_when_only_a_smaller_model_would_do():
    with pytest.raises(ConfigError, match="smaller model"):
        check_memory(REQUEST, estimate_for, 100, ALL)


@pytest.mark.parametrize(
    ("remedies", "overrides"),
    [
        # 12 examples by 4 are three micro-batches.
        (Remedies("step_examples", 12), ("trainer.batch_size=4",)),
        (Remedies("plain", 12), ("trainer.batch_size=4", "trainer.accumulation=3")),
        # Two groups of 8,000 tokens become four of 4,000.
        (Remedies("batch_tokens"), ("trainer.batch_tokens=4000", "trainer.accumulation=4")),
        (Remedies("auto"), ("trainer.gradient_checkpointing=true",)),
    ],
)
def test_a_step_is_cut_smaller_by_the_settings_that_say_how_it_is_cut(remedies, overrides):
    (first, *_) = advise(replace(REQUEST, accumulation=2), estimate_for, 1600, remedies)
    assert first.overrides == overrides


def test_a_micro_batch_that_does_not_divide_the_step_is_not_called_the_same_step():
    # 5 of 7 rows a micro-batch: 2 do not divide 7, 1 does.
    (first, *_) = advise(replace(REQUEST, rows=5), estimate_for, 1400, Remedies("plain", 7))
    assert first.overrides == ("trainer.batch_size=1", "trainer.accumulation=7")


def test_what_another_rule_refuses_is_not_advised():
    remedies = Remedies(checkpointing=False, four_bits=False, smaller_rank=False)
    advised = {word for each in advise(REQUEST, estimate_for, 1600, remedies) for word in each.overrides}
    assert advised == {"trainer.batch_size=4", "trainer.accumulation=2", "data.max_length=500"}


def test_an_orthogonal_start_is_advised_even_ranks_alone():
    # 1000 + 800 + 10 a rank: rank 5 would fit below 1860, rank 10 does not.
    remedies = Remedies("auto", checkpointing=False, four_bits=False)
    default = replace(REQUEST, lora=LoraConfig(r=20))
    orthogonal = replace(REQUEST, lora=LoraConfig(r=20, init="orthogonal"))
    ranks = [
        [word for each in advise(request, estimate_for, 1860, remedies) for word in each.overrides]
        for request in (default, orthogonal)
    ]
    assert "lora.r=5" in ranks[0]
    assert not any(word.startswith("lora.r=") for word in ranks[1])


@pytest.mark.parametrize(
    ("config", "stored", "expected"),
    [
        (TrainConfig(trainer=TrainerConfig(batch_size=4, accumulation=3)), False, Remedies("plain", 12)),
        (
            TrainConfig(trainer=TrainerConfig(batch_size=4, step_examples=10)),
            False,
            Remedies("step_examples", 10),
        ),
        (TrainConfig(trainer=TrainerConfig(batch_size="auto")), False, Remedies("auto")),
        (TrainConfig(trainer=TrainerConfig(batch_tokens=99)), False, Remedies("batch_tokens")),
        (TrainConfig(), True, Remedies("plain", 4, four_bits=False)),
        (
            TrainConfig(lora=LoraConfig(init="pissa"), quant=QuantConfig("none")),
            False,
            Remedies("plain", 4, four_bits=False),
        ),
        (
            TrainConfig(lora=LoraConfig(method="prefix")),
            False,
            Remedies("plain", 4, checkpointing=False, smaller_rank=False),
        ),
        (TrainConfig(lora=LoraConfig(method="ia3")), False, Remedies("plain", 4, smaller_rank=False)),
    ],
)
def test_the_remedies_of_a_run_follow_its_settings(config, stored, expected):
    assert allowed_remedies(config, stored) == expected
