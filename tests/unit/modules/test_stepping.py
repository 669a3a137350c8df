"""Micro-batches that do not fit are halved, and the update stays the same."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from loralab.config.model import LoraConfig
from loralab.config.schema import OptimConfig, ScheduleConfig, TrainConfig
from loralab.data.collate import MicroBatch, StepBatch, make_step, pack_examples, pad_examples
from loralab.data.masking import Example
from loralab.data.plan import StepPlan
from loralab.data.records import Conversation
from loralab.metrics import TRAIN_GRAD_NORM, TRAIN_LOSS
from loralab.model.attention import allow_padding_free, enable_document_attention
from loralab.model.lora import attach_adapter, causal_lm
from loralab.modules import stepping
from loralab.modules.guard import OUT_OF_MEMORY
from loralab.modules.sft import SFTModule
from loralab.modules.stepping import Halved, MicroBatchLimit, RowTooLarge, is_out_of_memory, split_rows

TINY = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0,
)  # fmt: skip
GPU_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"
)


def example(number: int) -> Example:
    ids = [(7 * number + 3 * place) % 60 + 1 for place in range(5 + number)]
    return Example(ids, [-100, -100, *ids[2:]], Conversation((), source="rows.jsonl", row=number + 1))


EXAMPLES = [example(number) for number in range(8)]


def build(source_names: tuple[str, ...] = ("data",)) -> SFTModule:
    torch.manual_seed(0)
    model = attach_adapter(LlamaForCausalLM(TINY), LoraConfig(r=4), seed=0)
    config = TrainConfig(optim=OptimConfig(lr=0.01), schedule=ScheduleConfig(name="constant", warmup=0))
    module = SFTModule(model, StepPlan(8, 8, 1, 20, 20, 0), config, torch.float32, source_names)
    generator = torch.Generator().manual_seed(1)
    for master in module.masters.parameters():
        master.data.normal_(std=0.05, generator=generator)
    module.masters.publish()
    optimizer = module.configure_optimizers()
    module.optimizers = lambda: optimizer  # type: ignore[method-assign, assignment, return-value]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign, assignment]
    return module.train()


def step_of(*sizes: int, step: int = 0) -> StepBatch:
    batches, at = [], 0
    for size in sizes:
        batches.append(pad_examples(EXAMPLES[at : at + size], 0))
        at += size
    return make_step(batches, EXAMPLES[:at], step)


def fail_in_backward(module: SFTModule, error: Exception, most_rows: int, in_step: int | None = None) -> None:
    """Breaks the backward pass off between the two layers, for micro-batches of more rows."""
    layers: Any = causal_lm(module.model).base_model.layers  # type: ignore[union-attr]

    def breaks(gradient: Tensor) -> None:
        if len(gradient) > most_rows and in_step in (None, module.finished_steps):
            raise error

    def watch(layer: object, arguments: object, output: Any) -> None:
        hidden = output if isinstance(output, Tensor) else output[0]
        if hidden.requires_grad:
            hidden.register_hook(breaks)

    layers[0].register_forward_hook(watch)


def weights(module: SFTModule) -> Tensor:
    return torch.cat([master.detach().flatten() for master in module.masters.parameters()])


@pytest.mark.parametrize("error", [GPU_ERROR, CPU_ERROR], ids=["gpu", "cpu"])
@pytest.mark.parametrize("sizes", [(8,), (2, 6), (2, 4, 2)])
def test_a_backward_pass_that_broke_off_leaves_no_trace_in_the_update(
    error: Exception, sizes: tuple[int, ...]
) -> None:
    whole, broken = build(), build()
    expected = whole.training_step(step_of(*sizes), 0)
    fail_in_backward(broken, error, most_rows=2)
    found = broken.training_step(step_of(*sizes), 0)
    assert float(found[TRAIN_LOSS]) == pytest.approx(float(expected[TRAIN_LOSS]), abs=1e-6)
    assert float(found[TRAIN_GRAD_NORM]) == pytest.approx(float(expected[TRAIN_GRAD_NORM]), abs=1e-6)
    moments = [each.optimizers().state_dict()["state"] for each in (whole, broken)]  # type: ignore[union-attr]
    for number in moments[0]:
        torch.testing.assert_close(
            moments[1][number]["exp_avg"], moments[0][number]["exp_avg"], rtol=0, atol=1e-6
        )


def test_out_of_memory_in_step_7_is_an_incident_and_the_size_stays() -> None:
    plain, tight = build(), build()
    fail_in_backward(tight, GPU_ERROR, most_rows=4, in_step=7)
    sizes = []
    original = tight.item_losses
    tight.item_losses = lambda batch: (sizes.append(len(batch.input_ids)), original(batch))[1]  # type: ignore
    for step in range(10):
        plain.training_step(step_of(8, step=step), 0)
        tight.training_step(step_of(8, step=step), 0)
        if step == 7:
            (incident,) = tight.incidents
            assert (incident.kind, incident.step) == (OUT_OF_MEMORY, 8)
            assert incident.cause == (
                "a micro-batch of 8 rows x 16 tokens did not fit; from here on they have at most 64 tokens"
            )
        else:
            assert tight.incidents == []
    assert sizes == [8] * 7 + [8, 4, 4] + [4, 4] * 2
    torch.testing.assert_close(weights(tight), weights(plain), rtol=0, atol=1e-5)
    later = MicroBatchLimit()
    later.load_state_dict(tight.limit.state_dict())
    assert later.tokens == 64


def test_a_single_row_that_does_not_fit_is_refused() -> None:
    module = build()
    fail_in_backward(module, GPU_ERROR, most_rows=0)
    with pytest.raises(RowTooLarge, match=r"a single row of 16 tokens: CUDA out of memory"):
        module.training_step(step_of(4), 0)
    assert all(master.grad is None for master in module.masters.parameters())


def test_other_errors_pass() -> None:
    module = build()
    fail_in_backward(module, RuntimeError("shapes do not match"), most_rows=0)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        module.training_step(step_of(4), 0)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, [4]), (999, [4]), (47, [2, 2]), (48, [3, 1]), (1, [1] * 4)]
)
def test_rows_are_cut_by_their_tokens(limit: int | None, expected: list[int]) -> None:
    batch = pad_examples(EXAMPLES[:4], 0)
    parts = list(split_rows(batch, limit))
    assert [len(part.input_ids) for part in parts] == expected
    assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
    assert sum((part.lengths or () for part in parts), ()) == batch.lengths


def test_packed_rows_keep_their_documents_apart() -> None:
    module = build()
    enable_document_attention(causal_lm(module.model))
    batch = pack_examples([EXAMPLES[:3], EXAMPLES[3:5], EXAMPLES[5:6]], 32, 0)
    parts = list(split_rows(batch, 64))
    # Documents of 5, 6 and 7 tokens, then of 8 and 9, then of 10; what is left of a row is padding.
    assert parts[0].bounds == (0, 5, 11, 18, 32, 40, 49, 64)
    assert parts[1].bounds == (0, 10, 32)
    halves = torch.cat([module.item_losses(part).losses for part in parts])
    torch.testing.assert_close(halves, module.item_losses(batch).losses, rtol=0, atol=1e-6)


def _skip_case(change: Callable[[Tensor], Tensor]) -> tuple[SFTModule, Tensor, Tensor]:
    module = build()
    for step in range(3):
        module.training_step(step_of(8, step=step), 0)
    before, original = weights(module).clone(), module.item_losses

    def changed(batch: MicroBatch) -> Any:
        parts = original(batch)
        return parts._replace(losses=change(parts.losses))

    module.item_losses = changed  # type: ignore[method-assign]
    module.training_step(step_of(4, 4, step=3), 0)
    after = weights(module).clone()
    module.item_losses = original  # type: ignore[method-assign]
    return module, before, after


@pytest.mark.parametrize("change", [lambda losses: losses * float("nan"), lambda losses: losses * 1e39])
def test_a_step_that_is_not_finite_changes_neither_weights_nor_optimizer(
    change: Callable[[Tensor], Tensor],
) -> None:
    module, before, after = _skip_case(change)
    assert torch.equal(before, after)
    assert [incident.kind for incident in module.incidents] == ["skipped"]
    assert module.finished_steps == 4
    module.training_step(step_of(8, step=4), 0)
    straight = build()
    for step in (0, 1, 2, 4):
        straight.training_step(step_of(8, step=step), 0)
    assert torch.equal(weights(module), weights(straight))


def test_a_step_knows_the_rows_that_it_saw() -> None:
    assert step_of(3).rows == ("rows.jsonl line 1", "rows.jsonl line 2", "rows.jsonl line 3")


@pytest.mark.parametrize("padding_free", [False, True])
def test_prompts_and_responses_are_measured_apart(padding_free: bool) -> None:
    module = build().eval()
    if padding_free:
        allow_padding_free(causal_lm(module.model))
        module.padding_free = True
    batch = pad_examples(EXAMPLES[:3], 0)
    with torch.no_grad():
        module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        logits = causal_lm(module.model)(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).logits
    nll = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), batch.input_ids[:, 1:], reduction="none"
    )
    # The first two tokens of each row are the prompt, and the first is never predicted.
    learned = [nll[row, 1 : 4 + row] for row in range(3)]
    assert module.val_loss == pytest.approx(torch.cat(learned).mean().item(), abs=1e-5)
    assert module.val_prompt_loss == pytest.approx(nll[:, 0].mean().item(), abs=1e-5)
    figures = module.validation_figures()
    assert figures["val/prompt_perplexity"] == pytest.approx(math.exp(figures["val/prompt_loss"]))
    module.config.eval.prompt_loss = False
    module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert "val/prompt_loss" not in module.validation_figures()


def test_prompts_and_responses_of_each_source_are_measured_apart() -> None:
    module = build(source_names=("chat", "code")).eval()
    batch = pad_examples(
        [dataclasses.replace(each, source=at % 2) for at, each in enumerate(EXAMPLES[:4])], 0
    )
    with torch.no_grad():
        module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        logits = causal_lm(module.model)(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).logits
    nll = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), batch.input_ids[:, 1:], reduction="none"
    )
    figures = module.validation_figures()
    for name, rows in (("chat", (0, 2)), ("code", (1, 3))):
        learned = torch.cat([nll[row, 1 : 4 + row] for row in rows])
        prompt = torch.stack([nll[row, 0] for row in rows])
        assert figures[f"val/loss/{name}"] == pytest.approx(learned.mean().item(), abs=1e-5)
        assert figures[f"val/prompt_loss/{name}"] == pytest.approx(prompt.mean().item(), abs=1e-5)
        assert figures[f"val/prompt_perplexity/{name}"] == pytest.approx(
            math.exp(prompt.mean().item()), abs=1e-4
        )


def test_the_smallest_limit_of_any_process_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "world_size", lambda: 3)
    reports, limits = [], [MicroBatchLimit() for _ in range(3)]
    # The second process halves twice in the step, the third once.
    halved: list[list[Halved]] = [[], [Halved(8, 16, 64), Halved(4, 16, 32)], [Halved(6, 16, 48)]]
    for number, own in enumerate(halved):
        monkeypatch.setattr(stepping, "rank", lambda number=number: number)
        reports.append(limits[number].report(own))
    for limit in limits:
        assert limit.share(torch.stack(reports).sum(0)) == [
            f"process 1: {Halved(4, 16, 32)}",
            f"process 2: {Halved(6, 16, 48)}",
        ]
        assert limit.tokens == 32
        assert limit.share(torch.zeros(9, dtype=torch.float64)) == []
        assert limit.tokens == 32
