"""The step against an independent implementation: full logits and one loss over the whole batch."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.config.schema import OptimConfig, ScheduleConfig, TrainConfig, TrainerConfig
from loralab.config.speed import SpeedConfig
from loralab.data.collate import MicroBatch, collate_step, make_step, pack_examples, pad_examples
from loralab.data.cutting import MicroBatchSize
from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.packing import pack_best_fit
from loralab.data.plan import StepPlan
from loralab.data.prepare import prepare_data
from loralab.data.records import Conversation
from loralab.errors import ConfigError
from loralab.metrics import TRAIN_GRAD_NORM, TRAIN_LOSS, TRAIN_LR
from loralab.model.attention import enable_document_attention
from loralab.model.checkpointing import recompute_layers
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, causal_lm, trainable
from loralab.model.row_paths import has_dropout
from loralab.modules.sft import SFTModule

CPU = torch.device("cpu")
LR = 0.01
LEARNED = 0.6
"""Share of the tokens of random documents that are learned."""


class Optimizers:
    """Stands in for Lightning: hands out the module's own optimizer."""

    def __init__(self, module: SFTModule) -> None:
        self.optimizer = module.configure_optimizers()
        module.optimizers = lambda: self.optimizer  # type: ignore[method-assign]
        module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def examples(rows_file: Path, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    config = DataConfig(name="file", path=str(rows_file), max_length=256)
    return list(prepare_data(config, tokenizer, seed=0).train.examples)


def build(
    tiny_model_dir: Path,
    quant: str = "none",
    dtype: torch.dtype = torch.float32,
    names: tuple[str, ...] = ("data",),
    **trainer: object,
) -> SFTModule:
    config = TrainConfig(
        trainer=dataclasses.replace(TrainerConfig(), **{"grad_clip": None, **trainer}),
        optim=OptimConfig(lr=LR),
        schedule=ScheduleConfig(name="constant", warmup=0),
    )
    base = load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name=quant), CPU, dtype)
    recompute_layers(base, config.trainer.gradient_checkpointing)
    model = attach_adapter(base, LoraConfig(r=4), seed=0)
    for parameter in trainable(model).values():
        torch.nn.init.normal_(parameter, std=0.05)
    module = SFTModule(model, StepPlan(8, 8, 1, 10, 1, 0), config, dtype, names, len(names))
    Optimizers(module)
    return module.train()


def run_step(module: SFTModule, examples: list[Example], micro_batch_size: int) -> dict[str, float]:
    return module.training_step(collate_step(examples, 0, MicroBatchSize(rows=micro_batch_size), pad_id=0), 0)


def test_step_equals_a_plain_implementation(tiny_model_dir: Path, examples: list[Example]) -> None:
    ours, plain = build(tiny_model_dir), build(tiny_model_dir)
    metrics = run_step(ours, examples[:8], micro_batch_size=2)

    batch = pad_examples(examples[:8], 0)
    logits = causal_lm(plain.model)(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), batch.labels[:, 1:].reshape(-1), ignore_index=-100
    )
    gradients = torch.autograd.grad(loss, list(trainable(plain.model).values()))
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()

    assert float(metrics[TRAIN_LOSS]) == pytest.approx(loss.item(), abs=1e-5)
    assert float(metrics[TRAIN_GRAD_NORM]) == pytest.approx(norm.item(), abs=1e-5)
    # AdamW's first step moves each weight by lr * g / (|g| + eps), whatever the size of g.
    for (name, before), gradient in zip(trainable(plain.model).items(), gradients, strict=True):
        expected = before - LR * gradient / (gradient.abs() + 1e-8)
        certain = gradient.abs() > 1e-5  # where the sign of the gradient is beyond rounding
        moved = trainable(ours.model)[name]
        torch.testing.assert_close(moved[certain], expected[certain], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("micro_batch_size", [4, 2, 1])
def test_accumulated_micro_batches_give_the_update_of_one_batch(
    tiny_model_dir: Path, examples: list[Example], micro_batch_size: int
) -> None:
    whole, parts = build(tiny_model_dir), build(tiny_model_dir)
    expected = run_step(whole, examples[:8], micro_batch_size=8)
    found = run_step(parts, examples[:8], micro_batch_size)
    assert_same_step(parts, whole, found, expected)


def assert_same_step(first: SFTModule, second: SFTModule, *results: dict[str, float]) -> None:
    """Losses, norms and every gradient agree: AdamW's first moment is a tenth of the gradient."""
    for name in (TRAIN_LOSS, TRAIN_GRAD_NORM):
        assert float(results[0][name]) == pytest.approx(float(results[1][name]), abs=1e-5)
    moments = [module.optimizers().state_dict()["state"] for module in (first, second)]
    for name in moments[0]:
        found, expected = (each[name]["exp_avg"] for each in moments)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("every", "recomputed_layers"), [(True, [0, 1]), (1, [0, 1]), (2, [0]), (5, [0])])
def test_gradient_checkpointing_changes_nothing(
    tiny_model_dir: Path, examples: list[Example], every: bool | int, recomputed_layers: list[int]
) -> None:
    plain, recomputing = build(tiny_model_dir), build(tiny_model_dir, gradient_checkpointing=every)
    runs = Counter[int]()
    for number, layer in enumerate(causal_lm(recomputing.model).model.layers):
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: runs.update([number]))
    found, expected = (run_step(module, examples[:8], 8) for module in (recomputing, plain))
    assert [number for number in (0, 1) if runs[number] == 2] == recomputed_layers
    assert runs.total() == 2 + len(recomputed_layers)
    assert_same_step(recomputing, plain, found, expected)


def test_a_model_that_cannot_recompute_says_so(tiny_model_dir: Path) -> None:
    base = load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name="none"), CPU, torch.float32)
    base.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match=r"gradient_checkpointing=2 is not possible with LlamaFor.*false"):
        recompute_layers(base, 2)
    recompute_layers(base, False)


def test_masked_tokens_after_the_last_supervised_one_change_nothing(
    tiny_model_dir: Path, examples: list[Example]
) -> None:
    plain, masked = build(tiny_model_dir), build(tiny_model_dir)
    longer = [
        dataclasses.replace(
            example,
            input_ids=[*example.input_ids, *range(5, 5 + place)],
            labels=[*example.labels, *[-100] * place],
        )
        for place, example in enumerate(examples[:8])
    ]
    assert_same_step(masked, plain, run_step(masked, longer, 4), run_step(plain, examples[:8], 4))


def test_rates_move_with_optimizer_steps_however_a_step_is_cut(
    tiny_model_dir: Path, examples: list[Example]
) -> None:
    for micro_batch_size in (8, 1):
        module = build(tiny_model_dir)
        module.config.schedule = ScheduleConfig(name="linear", warmup=2)
        size = MicroBatchSize(rows=micro_batch_size)
        batches = [collate_step(examples[:8], step, size, 0) for step in range(4)]
        rates = [module.training_step(batch, 0) for batch in batches]
        # 10 steps in all: 2 of warm-up, 8 of decay.
        assert [each[TRAIN_LR] / LR for each in rates] == pytest.approx([0.5, 1.0, 1.0, 0.875])


def test_tokens_that_are_not_supervised_change_nothing_that_comes_before(
    tiny_model_dir: Path, examples: list[Example]
) -> None:
    module, example = build(tiny_model_dir), examples[0]
    longer = dataclasses.replace(
        example, input_ids=[*example.input_ids, 5, 6, 7], labels=[*example.labels, -100, -100, -100]
    )
    first, second = (module.item_losses(pad_examples([item], 0)).losses for item in (example, longer))
    assert first.tolist() == pytest.approx(second.tolist(), abs=1e-5)
    assert len(first) == len(second) == example.num_supervised


@pytest.mark.parametrize(
    ("quant", "dtype"), [("none", torch.float32), ("nf4", torch.float32), ("nf4", torch.bfloat16)]
)
def test_gradients_reach_every_adapted_layer_and_no_base_weight_changes(
    tiny_model_dir: Path, examples: list[Example], quant: str, dtype: torch.dtype
) -> None:
    module = build(tiny_model_dir, quant, dtype)
    frozen = {n: p.detach().clone() for n, p in module.model.named_parameters() if not p.requires_grad}
    adapter = module.masters.state_dict()
    assert len(adapter) == 2 * 7 * 2  # layers, projections, A and B
    for _ in range(3):
        run_step(module, examples[:8], 4)
    for name, before in adapter.items():
        assert (module.masters.masters[name] - before).abs().max() > LR / 2, name
    for name, parameter in module.model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name


def test_a_validation_before_training_changes_no_step(tiny_model_dir: Path, examples: list[Example]) -> None:
    losses = []
    for validates in (False, True):
        module = build(tiny_model_dir, "nf4", torch.bfloat16)
        if validates:
            module.eval()
            with torch.inference_mode():
                module.item_losses(pad_examples(examples[:8], 0))
            module.train()
        losses.append([float(run_step(module, examples[:8], 4)[TRAIN_LOSS]) for _ in range(10)])
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.9 * losses[0][0]


def test_clipping_bounds_the_update_direction_not_the_reported_norm(
    tiny_model_dir: Path, examples: list[Example]
) -> None:
    free, clipped = build(tiny_model_dir), build(tiny_model_dir, grad_clip=1e-3)
    raw = run_step(free, examples[:8], 8)
    kept = run_step(clipped, examples[:8], 8)
    assert float(kept[TRAIN_GRAD_NORM]) == pytest.approx(float(raw[TRAIN_GRAD_NORM]))
    moment = clipped.optimizers().state_dict()["state"]
    # Adam's first moment after one step is (1 - 0.9) g, so its norm is a tenth of the clipped norm.
    norm = torch.stack([entry["exp_avg"].square().sum() for entry in moment.values()]).sum().sqrt()
    assert norm.item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_weights_of_tokens_scale_their_share_of_the_mean(
    tiny_model_dir: Path, examples: list[Example]
) -> None:
    module = build(tiny_model_dir)
    weights = [0.5, 2.0, 1.0]
    weighted = [
        dataclasses.replace(example, weights=[weight] * len(example.input_ids))
        for example, weight in zip(examples[:3], weights, strict=True)
    ]
    sums = [module.item_losses(pad_examples([example], 0)).losses.sum().item() for example in examples[:3]]
    counts = [example.num_supervised for example in examples[:3]]
    expected = sum(w * s for w, s in zip(weights, sums, strict=True)) / sum(
        w * n for w, n in zip(weights, counts, strict=True)
    )
    found = run_step(module, weighted, micro_batch_size=2)
    assert float(found[TRAIN_LOSS]) == pytest.approx(expected, abs=1e-5)


def test_loss_is_kept_for_each_source(tiny_model_dir: Path, examples: list[Example]) -> None:
    module = build(tiny_model_dir, names=("first", "second"))
    mixed = [dataclasses.replace(example, source=place % 2) for place, example in enumerate(examples[:6])]
    alone = [build(tiny_model_dir) for _ in range(2)]
    expected = [float(run_step(each, examples[place:6:2], 3)[TRAIN_LOSS]) for place, each in enumerate(alone)]
    found = run_step(module, mixed, micro_batch_size=4)
    assert float(found["train/loss/first"]) == pytest.approx(expected[0], abs=1e-5)
    assert float(found["train/loss/second"]) == pytest.approx(expected[1], abs=1e-5)
    assert math.isnan(run_step(module, mixed[::2], 4)["train/loss/second"])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_rows_give_the_loss_and_gradients_of_single_rows(
    tiny_model_dir: Path, examples: list[Example], checkpointing: bool
) -> None:
    plain = build(tiny_model_dir, gradient_checkpointing=checkpointing)
    packed = build(tiny_model_dir, gradient_checkpointing=checkpointing)
    enable_document_attention(causal_lm(packed.model))
    chosen = examples[:7]
    rows = [pack_examples([chosen[:4]], 256, 0), pack_examples([chosen[4:]], 256, 0)]
    found = packed.training_step(make_step(rows, chosen, 0), 0)
    assert_same_step(packed, plain, found, run_step(plain, chosen, micro_batch_size=2))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rows_without_padding_give_the_same_step(
    tiny_model_dir: Path, examples: list[Example], checkpointing: bool
) -> None:
    plain = build(tiny_model_dir, gradient_checkpointing=checkpointing)
    dense = build(tiny_model_dir, gradient_checkpointing=checkpointing)
    assert not dense.padding_free
    enable_document_attention(causal_lm(dense.model))
    dense.padding_free = True
    seen: list[torch.Size] = []
    embedding = causal_lm(dense.model).get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[:2]))
    found = run_step(dense, examples[:7], micro_batch_size=3)
    assert_same_step(dense, plain, found, run_step(plain, examples[:7], micro_batch_size=3))
    assert [rows for rows, _ in seen] == [1, 1, 1]


@pytest.mark.parametrize(
    ("trainer", "training", "expected"),
    [
        ({}, True, True),
        ({"speed": SpeedConfig(shared_prefix=False)}, True, False),
        # Noise tells the copies of the same tokens apart; there is none in validation.
        ({"neftune_alpha": 5.0}, True, False),
        ({"neftune_alpha": 5.0}, False, True),
    ],
)
def test_what_rows_begin_with_goes_through_the_model_once(
    tiny_model_dir: Path, trainer: dict[str, object], training: bool, expected: bool
) -> None:
    module = build(tiny_model_dir, **trainer).train(training)
    enable_document_attention(causal_lm(module.model))
    module.padding_free = True
    seen: list[int] = []
    causal_lm(module.model).get_input_embeddings().register_forward_hook(
        lambda layer, inputs, output: seen.append(output.shape[1])
    )
    beginning = list(range(5, 37))
    ids = [[*beginning, *rest] for rest in ([3, 4], [7], [8])]
    rows = [Example(each, each, Conversation(())) for each in ids]
    assert len(module.item_losses(pad_examples(rows, 0)).losses) == 33 + 32 + 32
    # 34 + 33 + 33 tokens, or 32 + 2 + 1 + 1 filled up to a multiple of 16.
    assert seen == [48 if expected else 112]


def test_dropout_tells_copies_of_the_same_tokens_apart(tiny_model_dir: Path) -> None:
    plain, dropping, attending = (
        load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name="none"), CPU, torch.float32)
        for _ in range(3)
    )
    assert not has_dropout(attach_adapter(plain, LoraConfig(r=4), seed=0))
    assert has_dropout(attach_adapter(dropping, LoraConfig(r=4, dropout=0.1), seed=0))
    attending.model.layers[0].self_attn.attention_dropout = 0.1
    assert has_dropout(attending)
    # Dropout as a function, with a rate in an attribute.
    small = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_attention_heads": 2}
    for rate in (0.0, 0.1):
        config = OPTConfig(**small, num_hidden_layers=1, vocab_size=16, dropout=rate)
        assert has_dropout(OPTForCausalLM(config)) is (rate > 0)


@pytest.fixture(scope="module")
def alike(tiny_model_dir: Path) -> tuple[SFTModule, SFTModule]:
    """Two modules with the same weights, the second of which keeps packed documents apart."""
    plain, packed = build(tiny_model_dir), build(tiny_model_dir)
    packed.load_state_dict(plain.state_dict())
    enable_document_attention(causal_lm(packed.model))
    return plain, packed


def loss_and_gradients(module: SFTModule, batches: Sequence[MicroBatch]) -> tuple[Tensor, tuple[Tensor, ...]]:
    loss = torch.stack([module.item_losses(batch).losses.sum() for batch in batches]).sum()
    return loss.detach(), torch.autograd.grad(loss, list(trainable(module.model).values()))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=7), st.randoms(use_true_random=False))
def test_any_documents_give_the_same_loss_and_gradients_packed_or_not(
    alike: tuple[SFTModule, SFTModule], lengths: list[int], random: Random
) -> None:
    documents = []
    for length in lengths:
        ids = [random.randrange(3, 300) for _ in range(length)]
        labels = [token if random.random() < LEARNED else IGNORE_INDEX for token in ids]
        documents.append(Example(ids, [*labels[:-1], ids[-1]], Conversation(())))
    packs = [[documents[place] for place in pack] for pack in pack_best_fit(lengths, 48)]
    expected = loss_and_gradients(alike[0], [pad_examples([document], 0) for document in documents])
    found = loss_and_gradients(alike[1], [pack_examples(packs, 48, 0)])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_packing_without_isolation_would_change_the_loss(
    tiny_model_dir: Path, examples: list[Example]
) -> None:
    module = build(tiny_model_dir)
    batch = pack_examples([examples[:4]], 256, 0)
    leaking = batch._replace(bounds=None)
    enable_document_attention(causal_lm(module.model))
    with torch.inference_mode():
        kept, leaked = (module.item_losses(each).losses.sum() for each in (batch, leaking))
    assert abs(float(kept - leaked)) > 1e-2
