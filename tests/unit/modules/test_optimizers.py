"""Every choice of `optim` in the training step: it learns, and goes on from a checkpoint bit for bit."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from loralab.config.model import LoraConfig
from loralab.config.optim_rules import OPTIM_FIELDS, OVERWRITES_GRADIENTS
from loralab.config.schema import OptimConfig, ScheduleConfig, TrainConfig
from loralab.data.collate import StepBatch, make_step, pad_examples
from loralab.data.masking import Example
from loralab.data.plan import StepPlan
from loralab.data.records import Conversation
from loralab.metrics import TRAIN_LOSS, TRAIN_LR
from loralab.model.lora import attach_adapter, trainable
from loralab.modules.sft import SFTModule
from loralab.optim.build import OPTIMIZERS, build_optimizer
from loralab.optim.state_size import kind_of_state, state_bytes
from loralab.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

CONF = Path(__file__).parents[3] / "conf" / "optim"
NAMES = list(OPTIM_FIELDS)
STEPS = 20
WIDE = LlamaConfig(
    vocab_size=64, hidden_size=128, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=64, pad_token_id=0,
)  # fmt: skip
BIASES = {"lora": LoraConfig(r=32), "dora": LoraConfig(r=4, dora=True, modules_to_save=["lm_head"])}
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


def settings(name: str) -> OptimConfig:
    """The choice as its YAML file makes it."""
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    values.pop("defaults", None)
    return OptimConfig(**values)


def make_module(optim: OptimConfig, lora: LoraConfig | None = None) -> SFTModule:
    """A module on a random model, with its optimizer; A and B have 4096 numbers, enough for 8-bit states."""
    config = TrainConfig(optim=dataclasses.replace(optim), schedule=ScheduleConfig(name="constant", warmup=0))
    torch.manual_seed(0)
    model = attach_adapter(LlamaForCausalLM(WIDE), lora or LoraConfig(r=32), seed=0)
    module = SFTModule(model, StepPlan(8, 8, 1, STEPS, 1, 0), config, torch.float32)
    optimizer = module.configure_optimizers()
    module.optimizers = lambda: optimizer  # type: ignore[method-assign]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    return module.train()


def steps(first: int, last: int) -> Iterator[StepBatch]:
    for step in range(first, last):
        rows = torch.randint(3, 64, (4, 12), generator=torch.Generator().manual_seed(step % 2)).tolist()
        examples = [Example(row, row, Conversation(())) for row in rows]
        yield make_step([pad_examples(examples, 0)], examples, step)


def train(module: SFTModule, first: int, last: int) -> list[float]:
    return [float(module.training_step(batch, 0)[TRAIN_LOSS]) for batch in steps(first, last)]


def checkpoint_of(module: SFTModule) -> Checkpoint:
    state = {"optimizer": module.optimizers().state_dict(), "method": module.method_state()}
    return Checkpoint(module.masters.state_dict(), state, {})


def go_on(module: SFTModule, saved: Checkpoint) -> None:
    module.masters.load_state_dict(saved.weights)
    module.load_method_state(saved.state["method"])
    module.optimizers().load_state_dict(saved.state["optimizer"])


def test_every_choice_has_a_builder_and_a_file() -> None:
    assert set(OPTIMIZERS) == set(NAMES) == {path.stem for path in CONF.glob("*.yaml")}


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_at_the_default_rate(name: str) -> None:
    losses = train(make_module(settings(name)), 0, STEPS)
    assert losses[-1] < losses[0] - 0.05
    assert all(later < losses[0] + 0.01 for later in losses[2:])


@pytest.mark.parametrize("kind", BIASES)
@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_takes_the_steps_of_one_that_never_stopped(
    name: str, kind: str, tmp_path: Path
) -> None:
    whole, stopped, resumed = (make_module(settings(name), BIASES[kind]) for _ in range(3))
    train(whole, 0, 6)
    train(stopped, 0, 3)
    save_checkpoint(tmp_path / "last", checkpoint_of(stopped))
    go_on(resumed, load_checkpoint(tmp_path / "last"))
    train(resumed, 3, 6)

    for parameter, expected in zip(
        trainable(resumed.model).values(), trainable(whole.model).values(), strict=True
    ):
        assert torch.equal(parameter, expected)
    ours, theirs = (checkpoint_of(module) for module in (resumed, whole))
    assert all(torch.equal(ours.weights[key], value) for key, value in theirs.weights.items())
    assert same(ours.state, theirs.state)


def same(first: object, second: object) -> bool:
    """Compares nested states to the last bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return isinstance(second, dict) and first.keys() == second.keys() and all(
            same(first[key], second[key]) for key in first
        )  # fmt: skip
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))  # type: ignore[arg-type]
    return bool(first == second)


@pytest.mark.parametrize("kind", BIASES)
@pytest.mark.parametrize("name", [*NAMES, "sgd_plain"])
def test_the_estimated_state_is_what_a_step_leaves(name: str, kind: str) -> None:
    optim = settings(name) if name in NAMES else OptimConfig(name="sgd", momentum=0.0)
    module = make_module(optim, BIASES[kind])
    train(module, 0, 1)
    state = module.optimizers().state
    kept = {
        id(value): value.nbytes
        for entry in state.values() for key, value in entry.items()
        # Tables that 8-bit states share, and single numbers, are left out.
        if isinstance(value, torch.Tensor) and value.dim() and not key.startswith("qmap")
    }  # fmt: skip
    masters = module.masters.masters
    expected = sum(state_bytes(kind_of_state(optim), name, each.shape) for name, each in masters.items())
    assert sum(kept.values()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_left_alone_by_all_that_are_not_said_to_overwrite_them(name: str) -> None:
    weights = {
        f"layer.lora_{letter}.weight": torch.nn.Parameter(torch.ones(4, 4) + place)
        for place, letter in enumerate("AB")
    }
    optimizer = build_optimizer(weights, settings(name), lr=1e-3)
    torch.manual_seed(0)
    before = [torch.randn(4, 4) for _ in weights]
    for weight, gradient in zip(weights.values(), before, strict=True):
        weight.grad = gradient.clone()
    optimizer.step()
    kept = all(torch.equal(w.grad, g) for w, g in zip(weights.values(), before, strict=True))
    assert kept == (name not in OVERWRITES_GRADIENTS)


def test_the_rate_that_is_reported_is_the_base_rate() -> None:
    module = make_module(OptimConfig(lr=1e-3, lora_plus_ratio=16))
    (batch,) = steps(0, 1)
    assert module.training_step(batch, 0)[TRAIN_LR] == 1e-3
    assert {group["lr"] for group in module.optimizers().param_groups} == {1e-3, 1.6e-2}


def test_muon_leaves_vectors_and_whole_modules_to_adamw() -> None:
    module = make_module(settings("muon"), BIASES["dora"])
    train(module, 0, 1)
    state = module.optimizers().state
    by_adamw = {name for name, master in module.masters.masters.items() if "exp_avg" in state[master]}
    assert by_adamw == {
        name for name in module.masters.masters if "magnitude" in name or "modules_to_save" in name
    }
    assert len(by_adamw) == 8


def test_muon_moves_a_matrix_by_an_orthogonal_one() -> None:
    # The update has singular values near 1 times 0.2 sqrt(longer side) (arXiv:2502.16982, equation 4).
    weight = torch.nn.Parameter(torch.zeros(4, 64))
    optimizer = build_optimizer({"layer.lora_A.weight": weight}, settings("muon"), lr=0.01)
    weight.grad = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    values = torch.linalg.svdvals(weight.detach()) / (0.01 * 0.2 * 8)
    assert ((values > 0.6) & (values < 1.3)).all()
