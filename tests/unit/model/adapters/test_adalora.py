"""Rank allocation on float32 masters against PEFT's own loop on the model's parameters."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from loralab.config.model import LoraConfig
from loralab.config.schema import OptimConfig, ScheduleConfig, TrainConfig, TrainerConfig
from loralab.data.collate import MicroBatch, StepBatch
from loralab.data.plan import StepPlan
from loralab.errors import ConfigError
from loralab.metrics import TRAIN_LOSS
from loralab.model.adapters.adalora import initial_rank, orthogonality, phases
from loralab.model.adapters.context import AdapterContext
from loralab.model.lora import attach_adapter, save_adapter, trainable
from loralab.modules.guard import SKIPPED, Incident
from loralab.modules.sft import SFTModule

CONFIG = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
)
LORA = LoraConfig(method="adalora", r=2, initial_rank=4, targets=["q_proj", "v_proj"])
NUM_LAYERS = 4
STEPS = 12
LR = 0.02


def batch_of(step: int) -> MicroBatch:
    ids = torch.randint(3, 50, (3, 9), generator=torch.Generator().manual_seed(step))
    return MicroBatch(ids, torch.ones_like(ids), ids)


def adapt(dtype: torch.dtype = torch.float32, total_steps: int | None = STEPS) -> PeftModel:
    torch.manual_seed(0)
    base = LlamaForCausalLM(CONFIG).to(dtype)
    return attach_adapter(base, LORA, 0, AdapterContext(total_steps=total_steps))


def build(dtype: torch.dtype = torch.float32) -> SFTModule:
    config = TrainConfig(
        optim=OptimConfig(lr=LR, betas=[0.9, 0.99]),
        schedule=ScheduleConfig(name="constant", warmup=0),
        trainer=TrainerConfig(grad_clip=None),
    )
    module = SFTModule(adapt(dtype), StepPlan(8, 8, STEPS, None, 1, 0), config, dtype)
    optimizer = module.configure_optimizers()
    module.optimizers = lambda: optimizer  # type: ignore[method-assign]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    return module.train()


def step(module: SFTModule, number: int) -> dict[str, float]:
    batch = batch_of(number)
    return module.training_step(
        StepBatch(
            [batch], number, float(batch.num_supervised), batch.num_supervised, batch.input_ids.numel()
        ),
        0,
    )


def ranks(module: SFTModule) -> list[int]:
    pattern = module.model.peft_config["default"].rank_pattern
    return [] if pattern is None else [sum(kept) for kept in pattern.values()]


def test_a_run_is_divided_into_warm_up_pruning_and_fixed_ranks() -> None:
    assert phases(2) == (0, 0, 1)
    assert phases(100) == (10, 30, 1)
    assert phases(5000) == (500, 1500, 30)
    assert initial_rank(LoraConfig(r=8)) == 12
    assert initial_rank(LoraConfig(r=1)) == 2
    assert initial_rank(LoraConfig(r=8, initial_rank=9)) == 9


@pytest.mark.parametrize("total", [None, 1])
def test_a_run_too_short_to_prune_is_refused(total: int | None) -> None:
    with pytest.raises(ConfigError, match=r"lora.method=adalora prunes.*at least 2"):
        adapt(total_steps=total)


def test_orthogonality_is_the_mean_distance_of_the_gram_matrices_from_one() -> None:
    parameters = {
        "q.lora_A.default": torch.tensor([[3.0, 4.0]]),  # 25 from 1: 24
        "q.lora_B.default": torch.tensor([[1.0], [0.0]]),  # orthonormal: 0
        "q.lora_E.default": torch.tensor([[7.0]]),
    }
    assert orthogonality(parameters).item() == pytest.approx((24 + 0) / 2)


def test_training_equals_pefts_own_loop() -> None:
    """PEFT adds the regulariser to the loss of its forward pass and reads the model's own gradients."""
    module, plain = build(), adapt().train()
    optimizer = torch.optim.AdamW(list(trainable(plain).values()), lr=LR, betas=(0.9, 0.99), weight_decay=0)
    seen = set()
    for number in range(STEPS):
        loss = step(module, number)[TRAIN_LOSS]
        batch = batch_of(number)
        output = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels)
        output.loss.backward()
        optimizer.step()
        plain.base_model.update_and_allocate(number + 1)
        optimizer.zero_grad()
        assert float(loss) < output.loss.item()  # ours is the objective's alone
        for name, value in trainable(plain).items():
            torch.testing.assert_close(module.masters.masters[name], value, rtol=1e-4, atol=1e-5, msg=name)
        seen.add(sum(ranks(module)) if ranks(module) else NUM_LAYERS * 4)
    assert module.model.peft_config["default"].rank_pattern == plain.peft_config["default"].rank_pattern
    # From rank 4 everywhere to 2 on average, in between by the cubic schedule.
    assert {NUM_LAYERS * 4, NUM_LAYERS * 2} < seen


def test_the_pruned_triplets_are_zero_in_the_model_and_left_out_of_the_file(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    module = build()
    for number in range(STEPS):
        step(module, number)
    assert sum(ranks(module)) == NUM_LAYERS * 2
    values = {name: value for name, value in trainable(module.model).items() if "lora_E" in name}
    kept = [int((value != 0).sum()) for value in values.values()]
    assert kept == ranks(module)
    save_adapter(module.model, tokenizer, module.masters.state_dict(), tmp_path)
    torch.manual_seed(0)
    again = PeftModel.from_pretrained(LlamaForCausalLM(CONFIG), str(tmp_path))
    saved = [len(value) for name, value in again.named_parameters() if "lora_E" in name]
    assert saved == ranks(module)
    batch = batch_of(99)
    with torch.inference_mode():
        expected = module.model.eval()(input_ids=batch.input_ids).logits
        torch.testing.assert_close(
            again.eval()(input_ids=batch.input_ids).logits, expected, rtol=1e-5, atol=1e-6
        )


def test_between_two_allocations_nothing_is_left_out() -> None:
    module = build()
    module.step_hooks.config.deltaT = 4
    patterns = []
    for number in range(STEPS):
        step(module, number)
        patterns.append(bool(ranks(module)))
    # A warm-up step, allocations after steps 4 and 8, the last one after step 9 and fixed from there on.
    assert patterns == [False] * 3 + [True] + [False] * 3 + [True] * 5


def leave_out(module: SFTModule, *steps: int) -> None:
    """Makes the guard leave out steps, counted from 0."""
    module.guard.judge = lambda step, *_: (  # type: ignore[method-assign]
        [Incident(SKIPPED, step + 1, "by hand")] if step in steps else []
    )


def test_a_step_that_is_left_out_moves_the_budget_and_says_nothing_about_importance() -> None:
    whole, module = build(), build()
    leave_out(module, 4)
    for number in range(4):
        step(whole, number)
        step(module, number)
    allocator = module.step_hooks.allocator
    importance, uncertainty = dict(allocator.exp_avg_ipt), dict(allocator.exp_avg_unc)
    step(whole, 4)
    step(module, 4)
    assert all(torch.equal(allocator.exp_avg_ipt[name], each) for name, each in importance.items())
    assert all(torch.equal(allocator.exp_avg_unc[name], each) for name, each in uncertainty.items())
    # Rank 16 shrinks to 8 over steps 1 to 9: 8 x (1 - 4 / 8)^3 + 8 after step 5.
    assert sum(ranks(module)) == sum(ranks(whole)) == 9


@pytest.mark.parametrize("steps", [(8,), (8, 9, 10, 11), (0, 1), (0, 1, 2, 3, 8)])
def test_the_final_ranks_are_reached_whichever_steps_are_left_out(steps: tuple[int, ...]) -> None:
    module = build()
    leave_out(module, *steps)
    for number in range(STEPS):
        step(module, number)
    assert sum(ranks(module)) == NUM_LAYERS * 2
    values = [value for name, value in trainable(module.model).items() if "lora_E" in name]
    assert [int((value != 0).sum()) for value in values] == ranks(module)


def test_a_run_without_a_single_step_keeps_its_first_ranks() -> None:
    module = build()
    leave_out(module, *range(STEPS))
    for number in range(STEPS):
        step(module, number)
    assert ranks(module) == []


def test_what_a_rollback_brings_back_after_the_last_allocation_is_pruned_at_once() -> None:
    module = build()
    for number in range(5):
        step(module, number)
    weights = {name: value.clone() for name, value in module.masters.state_dict().items()}
    state = module.method_state()
    for number in range(5, 10):
        step(module, number)
    module.masters.load_state_dict(weights)
    module.load_method_state({**state, "rank_pattern": None})
    step(module, 10)
    assert sum(ranks(module)) == NUM_LAYERS * 2


def test_the_initial_rank_is_no_weight_even_in_sixteen_bits() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert not [name for name in trainable(adapt(dtype)) if "ranknum" in name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stop", [1, 5, 8, 9, 10])
def test_a_resumed_run_equals_the_undisturbed_one_bit_for_bit(stop: int, dtype: torch.dtype) -> None:
    whole, first, second = build(dtype), build(dtype), build(dtype)
    for number in range(STEPS):
        step(whole, number)
    for number in range(stop):
        step(first, number)
    second.masters.load_state_dict(first.masters.state_dict())
    second.load_method_state(first.method_state())
    second.optimizers().load_state_dict(first.optimizers().state_dict())
    for number in range(stop, STEPS):
        step(second, number)
    for name, value in whole.masters.state_dict().items():
        assert torch.equal(second.masters.masters[name], value), name
    assert ranks(second) == ranks(whole)
