"""Rows side by side, against the same rows one after another."""

import threading
from pathlib import Path

import pytest
import torch
from torch.utils.hooks import RemovableHandle
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.config.speed import SpeedConfig
from loralab.data import shares
from loralab.data.collate import MicroBatch, pack_examples, pad_examples
from loralab.data.masking import Example
from loralab.data.plan import StepPlan
from loralab.data.prepare import prepare_data
from loralab.data.records import Conversation
from loralab.losses.parts import LossParts
from loralab.model.attention import enable_document_attention
from loralab.model.checkpointing import recompute_layers
from loralab.model.faster import run_faster
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, causal_lm, trainable
from loralab.model.row_paths import cost_of_target, keeps_state
from loralab.modules.row_threads import RowThreads
from loralab.modules.sft import SFTModule
from loralab.modules.stepping import split_rows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def examples(rows_file: Path, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    config = DataConfig(name="file", path=str(rows_file), max_length=256)
    return list(prepare_data(config, tokenizer, seed=0).train.examples)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shares, "LEAST_TOKENS", 16)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def build(tiny_model_dir: Path, quant: str = "none", **trainer: object) -> SFTModule:
    config = TrainConfig(trainer=TrainerConfig(grad_clip=None, **trainer))  # type: ignore[arg-type]
    base = load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name=quant), CPU, torch.float32)
    recompute_layers(base, config.trainer.gradient_checkpointing)
    enable_document_attention(base)
    model = attach_adapter(base, LoraConfig(r=4), seed=0)
    for parameter in trainable(model).values():
        torch.nn.init.normal_(parameter, std=0.05)
    run_faster(model, config.trainer.speed)
    return SFTModule(model, StepPlan(8, 8, 1, 10, 1, 0), config, torch.float32, ("data", "other"), 2).train()


def losses_and_gradients(module: SFTModule, batch: MicroBatch) -> tuple[LossParts, list[torch.Tensor]]:
    parts = module.batch_losses(batch)
    parts.weighted().sum().backward()
    gradients = [master.grad for master in module.masters.parameters()]
    module._drop_gathered()
    assert all(each is not None for each in gradients)
    return parts, gradients  # type: ignore[return-value]


def threads_that_meet(module: SFTModule) -> tuple[RemovableHandle, set[str]]:
    """Has each of two shares wait for the other, which only threads side by side can do."""
    threads: set[str] = set()
    both = threading.Barrier(2, timeout=60)

    def meet(*_: object) -> None:
        threads.add(threading.current_thread().name)
        both.wait()

    return causal_lm(module.model).get_input_embeddings().register_forward_hook(meet), threads


def laid(examples: list[Example], how: str) -> MicroBatch:
    if how == "packed":
        return pack_examples([examples[:4], examples[4:8]], 112, 0)
    return pad_examples(examples[:8], 0)


@pytest.mark.parametrize("how", ["padded", "packed"])
@pytest.mark.parametrize("quant", ["none", "nf4"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients_are_those_of_one_thread_after_another(
    tiny_model_dir: Path, examples: list[Example], how: str, quant: str, checkpointing: bool
) -> None:
    module = build(tiny_model_dir, quant, gradient_checkpointing=checkpointing)
    batch = laid(examples, how)
    assert len(module.shares(batch)) == 2
    hook, threads = threads_that_meet(module)
    found, gradients = losses_and_gradients(module, batch)
    hook.remove()
    assert len(threads) == 2 and "MainThread" not in threads
    module.row_threads.is_on = False
    assert len(module.shares(batch)) == 1
    expected, expected_gradients = losses_and_gradients(module, batch)
    torch.testing.assert_close(found.losses.sort()[0], expected.losses.sort()[0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_same_rows_give_the_same_bits(tiny_model_dir: Path, examples: list[Example]) -> None:
    """Whichever thread is done first."""
    module, batch = build(tiny_model_dir), laid(examples, "padded")
    first, *others = [losses_and_gradients(module, batch) for _ in range(4)]
    for other in others:
        assert torch.equal(first[0].losses, other[0].losses)
        assert all(torch.equal(one, two) for one, two in zip(first[1], other[1], strict=True))


def test_weights_and_sources_follow_their_tokens(tiny_model_dir: Path, examples: list[Example]) -> None:
    module = build(tiny_model_dir)
    marked = [
        Example(each.input_ids, each.labels, each.conversation, [number + 1.0] * len(each.labels), number % 2)
        for number, each in enumerate(examples[:6])
    ]
    batch = pad_examples(marked, 0)
    module._train_means.update(module.batch_losses(batch))
    found = module._train_means.compute()
    module._train_means.reset()
    module.row_threads.is_on = False
    module._train_means.update(module.batch_losses(batch))
    torch.testing.assert_close(found, module._train_means.compute())


def test_validation_runs_side_by_side_too(tiny_model_dir: Path, examples: list[Example]) -> None:
    module, batch = build(tiny_model_dir).eval(), laid(examples, "padded")
    hook, threads = threads_that_meet(module)
    losses = []
    for _ in range(2):
        with torch.inference_mode():
            module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        losses.append(module.val_loss)
        module.row_threads.is_on = False
        hook.remove()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert len(threads) == 2 and "MainThread" not in threads


def test_padded_rows_of_a_model_that_must_see_their_padding_stay_whole(
    tiny_model_dir: Path, examples: list[Example]
) -> None:
    module = build(tiny_model_dir)
    module.padding_free = False
    assert len(module.shares(laid(examples, "padded"))) == 1
    assert len(module.shares(laid(examples, "packed"))) == 2


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"rope_type": "default", "rope_theta": 10000.0}, False),
        ({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, True),
    ],
)
def test_rotary_embeddings_that_follow_the_length_are_state(
    parameters: dict[str, object], expected: bool
) -> None:
    """A pass over long rows would change the frequencies under one over short ones."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        rope_parameters=parameters,
    )  # fmt: skip
    assert keeps_state(LlamaForCausalLM(config)) is expected


@pytest.mark.parametrize(
    "trainer",
    [
        {"neftune_alpha": 5.0},
        {"speed": SpeedConfig(parallel_rows=False)},
        # PyTorch's compiler serves one thread.
        {"speed": SpeedConfig(compile=True)},
    ],
    ids=str,
)
def test_what_is_random_comes_in_order(
    tiny_model_dir: Path, examples: list[Example], trainer: dict[str, object]
) -> None:
    module = build(tiny_model_dir, **trainer)
    assert len(module.shares(laid(examples, "padded"))) == 1


@pytest.mark.parametrize("how", ["padded", "packed"])
def test_micro_batches_that_did_not_fit_are_shared_out_in_their_halves(
    tiny_model_dir: Path, examples: list[Example], how: str
) -> None:
    module, batch = build(tiny_model_dir), laid(examples, how)
    rows, width = batch.input_ids.shape
    halves = list(split_rows(batch, rows // 2 * width))
    assert [len(half.input_ids) for half in halves] == [rows // 2] * 2
    assert all(half.shared_prefix == batch.shared_prefix > 0 for half in halves)
    assert [len(module.shares(half)) for half in halves] == [2, 2]
    found = torch.cat([module.batch_losses(half).losses for half in halves]).sort()[0]
    module.row_threads.is_on = False
    torch.testing.assert_close(found, module.batch_losses(batch).losses.sort()[0], rtol=1e-5, atol=1e-5)


def test_padding_is_no_beginning(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents behind the padding of a row: a share must begin with a document."""
    torch.manual_seed(0)
    beginning = list(range(5, 45))
    lengths = [[300], [512], [400, 112], [350]]
    rows = [
        [
            Example(
                ids := [*beginning, *torch.randint(50, 300, (length - 40,)).tolist()], ids, Conversation(())
            )
            for length in row
        ]
        for row in lengths
    ]
    batch = pack_examples(rows, 512, 0)
    assert batch.shared_prefix == 40
    module = build(tiny_model_dir)
    assert len(module.shares(batch)) == 2
    found, gradients = losses_and_gradients(module, batch)
    module.row_threads.is_on = False
    module.shares_prefix = [False, False]
    expected, expected_gradients = losses_and_gradients(module, batch)
    torch.testing.assert_close(found.losses.sort()[0], expected.losses.sort()[0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_an_error_is_raised_when_all_have_ended() -> None:
    """What the others hold must be gone before memory is asked for again."""
    ended = threading.Event()
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise RuntimeError("no memory")

    def last() -> None:
        assert failed.wait(10)
        ended.set()

    with pytest.raises(RuntimeError, match="no memory"):
        RowThreads(is_on=True).run([fail, last])
    assert ended.is_set()


def test_in_turn_all_run_on_the_calling_thread() -> None:
    threads = RowThreads(is_on=True)

    def seen() -> tuple[str, int]:
        return threading.current_thread().name, torch.get_num_threads()

    with threads.in_turn():
        assert threads.run([seen, seen]) == [("MainThread", 2)] * 2
    assert "MainThread" not in {name for name, _ in threads.run([seen, seen])}


def test_each_thread_has_its_share_of_the_threads_and_the_modes_of_the_caller() -> None:
    def seen() -> tuple[int, bool, bool]:
        return torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    torch.set_num_threads(4)
    threads = RowThreads(is_on=True)
    assert threads.run([seen, seen]) == [(2, True, False)] * 2
    with torch.no_grad():
        assert threads.run([seen] * 4) == [(1, False, False)] * 4
    with torch.inference_mode():
        assert threads.run([seen] * 2) == [(2, False, True)] * 2
    assert torch.get_num_threads() == 4


def test_what_a_learned_token_costs_counted_by_hand(tiny_model_dir: Path) -> None:
    config = LlamaConfig(
        vocab_size=96, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    # A layer has q and o of 16 x 16, k and v of 8 x 16, and three of 24 x 16; the head has 96 x 16.
    assert cost_of_target(LlamaForCausalLM(config)) == 96 * 16 / (2 * (2 * 256 + 2 * 128 + 3 * 384))
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=16, n_layer=1, n_head=2))
    assert cost_of_target(gpt2) == 96 * 16 / (4 * 256 + 2 * 4 * 256)
    # Four bits hold no fewer products.
    plain, packed = (
        load_base(ModelConfig(path=str(tiny_model_dir)), QuantConfig(name=name), CPU, torch.float32)
        for name in ("none", "nf4")
    )
    assert cost_of_target(packed) == cost_of_target(plain) > 0
