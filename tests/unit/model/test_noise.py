"""NEFTune: noise of the right size, on real tokens, in training alone."""

import math

import pytest
import torch
from tests.unit.model.tiny_models import build

from loralab.config.model import LoraConfig
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.data.collate import MicroBatch, pack_examples, pad_examples
from loralab.data.masking import Example
from loralab.data.plan import StepPlan
from loralab.model.lora import attach_adapter
from loralab.model.noise import example_lengths, noisy_embeddings
from loralab.modules.sft import SFTModule

WIDTH = 32


def example(length: int) -> Example:
    return Example([5] * length, [5] * length, conversation=None)  # type: ignore[arg-type]


def noise_of(batch: MicroBatch, alpha: float) -> torch.Tensor:
    model = build("llama")
    embeddings = model.get_input_embeddings()
    plain = embeddings(batch.input_ids)
    with noisy_embeddings(model, batch, alpha):
        noisy = embeddings(batch.input_ids)
    assert torch.equal(embeddings(batch.input_ids), plain)  # it is gone with the context
    return noisy - plain


def test_noise_is_as_large_as_the_paper_says_and_spares_padding() -> None:
    batch = pad_examples([example(16), example(4)], 0)
    torch.manual_seed(0)
    noise = noise_of(batch, alpha=5.0)
    assert noise[1, 4:].abs().max() == 0
    for row, length in enumerate((16, 4)):
        bound = 5 / math.sqrt(length * WIDTH)
        values = noise[row, :length]
        assert 0.95 * bound < values.abs().max() <= bound + 1e-6
        # Uniform between -b and b: mean 0 and mean square b^2 / 3.
        assert abs(values.mean()) < 0.2 * bound
        assert values.square().mean().item() == pytest.approx(bound**2 / 3, rel=0.3)


def test_each_document_of_a_packed_row_has_its_own_length() -> None:
    batch = pack_examples([[example(3), example(2)], [example(4)]], 6, 0)
    assert example_lengths(batch).tolist() == [[3, 3, 3, 2, 2, 1], [4, 4, 4, 4, 2, 2]]
    noise = noise_of(batch, alpha=5.0)
    assert noise[0, 5].abs().max() == noise[1, 4:].abs().max() == 0
    assert noise[0, 3:5].abs().max() > 5 / math.sqrt(3 * WIDTH)  # larger than noise of three tokens can be


def test_padding_does_not_count() -> None:
    assert example_lengths(pad_examples([example(16), example(4)], 0)).tolist() == [[16] * 16, [4] * 16]


def test_no_alpha_draws_nothing() -> None:
    state = torch.get_rng_state()
    assert noise_of(pad_examples([example(4)], 0), alpha=0.0).abs().max() == 0
    build("llama")  # which seeds
    torch.set_rng_state(state)
    model = build("llama")
    before = torch.get_rng_state()
    with noisy_embeddings(model, pad_examples([example(4)], 0), 0.0):
        model.get_input_embeddings()(torch.ones(1, 2, dtype=torch.long))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_is_noisy_and_repeats_from_the_generators_state_and_validation_is_not() -> None:
    config = TrainConfig(trainer=TrainerConfig(neftune_alpha=5.0))
    model = attach_adapter(build("llama"), LoraConfig(r=4), seed=0)
    module, batch = SFTModule(model, StepPlan(8, 8, 1, 10, 1, 0), config, torch.float32), None
    batch = pad_examples([example(9)], 0)

    def loss() -> float:
        with torch.no_grad():
            return float(module.item_losses(batch).losses.sum())

    module.eval()
    plain = loss()
    assert loss() == plain
    module.train()
    state = torch.get_rng_state()
    first, second = loss(), loss()
    assert len({plain, first, second}) == 3
    torch.set_rng_state(state)
    assert loss() == first
