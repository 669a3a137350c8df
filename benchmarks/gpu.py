"""Speed and memory of training a model of Llama 3 8B's shape in NF4 on one GPU.

Its weights are random and are quantized layer by layer, so that it needs no network and never 16 GB of
weights. Each case runs the optimizer steps of the product on packed rows of 4,096 random tokens, all of them
learned, in a process of its own. Writes `results/gpu.json` and `.md`.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --tiny    # tries the same code on a CPU with a tiny model; writes nothing
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from machine import command_line, describe_machine, machine_line, write_results
from process import alone

if TYPE_CHECKING:
    from loralab.config.schema import TrainConfig
    from loralab.data.collate import StepBatch
    from loralab.modules.sft import SFTModule

LENGTH, DOCUMENT = 4096, 1024
"""Tokens of a row, and of each document in it."""
ROWS = (1, 2, 4)
"""Rows of a micro-batch: each restores all weights from 4 bits once forward and once backward."""
WARM_UP, STEPS = 3, 10
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "triton", "liger-kernel")
BF16_PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}
"""Dense products in bfloat16 per second, from NVIDIA's data sheets, by what is in the name of the card."""
WORDS = ("model=llama3_8b", "lora=r16", "data.packing=true", "optim=adamw")
TINY = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 128,
}  # fmt: skip
TINY_LENGTH = 64
NEEDS_GPU = "benchmarks/gpu.py needs a GPU, and PyTorch finds none here; --tiny tries it on a CPU."


@dataclass(frozen=True)
class Goal:
    """A way to train, and what it is to reach with micro-batches of `LENGTH` tokens on one H100."""

    name: str
    words: tuple[str, ...]
    gib: float
    tokens_per_s: float | None


GOALS = (
    Goal("plain", (), 48, 13_300),
    Goal("recomputation", ("trainer.gradient_checkpointing=true",), 12, 11_200),
    Goal("low_memory", ("trainer=low_memory",), 7.4, None),
)


def main() -> None:
    """Runs every case and writes the table."""
    options = parse()
    if options.tiny:
        for goal in GOALS:
            print(json.dumps({"goal": goal.name, **measure(goal, 1, 1, tiny=True)}))
        return
    if not has_gpu():
        print(NEEDS_GPU, file=sys.stderr)
        raise SystemExit(2)
    runs = []
    for goal in GOALS:
        for rows in options.rows:
            found = alone(measure, goal, rows, options.steps, False)
            runs.append({"goal": goal.name, "rows": rows, **found})
            print(runs[-1], flush=True)
    report = {"machine": describe_machine(PACKAGES), "length": LENGTH, "document": DOCUMENT, "runs": runs}
    write_results("gpu", report, to_markdown(report))


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--tiny", action="store_true", help="one step of a tiny model on a CPU")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"timed steps, after {WARM_UP} others")
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="rows of a micro-batch")
    return parser.parse_args()


def has_gpu() -> bool:
    """Whether PyTorch finds one."""
    import torch

    return torch.cuda.is_available()


def measure(goal: Goal, rows: int, steps: int, tiny: bool) -> dict[str, Any]:
    """Trains and returns tokens per second, peak memory and, on a known card, the share of its peak."""
    import torch

    from loralab.model.load import quiet_libraries

    quiet_libraries()
    device = torch.device("cpu" if tiny else "cuda")
    config = compose(goal, rows, tiny)
    module = build_module(config, device)
    batch = step_batch(module, config, device)
    losses = []
    for step in range(1 if tiny else WARM_UP):
        losses.append(module.training_step(batch._replace(step=step), 0)["train/loss"])
    _finish(device)
    started = time.perf_counter()
    for step in range(steps):
        losses.append(module.training_step(batch._replace(step=step), 0)["train/loss"])
    _finish(device)
    seconds = (time.perf_counter() - started) / steps
    return {
        "tokens_per_s": batch.tokens / seconds,
        "peak_gib": None if tiny else torch.cuda.max_memory_allocated() / 2**30,
        "reserved_gib": None if tiny else torch.cuda.max_memory_reserved() / 2**30,
        "share_of_peak": None if tiny else share_of_peak(module, batch, seconds),
        "first_loss": float(losses[0]),
        "last_loss": float(losses[-1]),
    }


def compose(goal: Goal, rows: int, tiny: bool) -> "TrainConfig":
    """Composes the config of a case as `train.py` would; a step has one micro-batch."""
    from loralab.config.load import compose_train

    length = TINY_LENGTH if tiny else LENGTH
    words = [*WORDS, *goal.words, f"data.max_length={length}", f"trainer.batch_size={rows}"]
    config = compose_train([*words, "trainer.accumulation=1", "trainer.max_steps=1000"])
    if tiny:
        config.model.architecture.update(TINY)
    return config


def build_module(config: "TrainConfig", device: Any) -> "SFTModule":
    """Builds the model as a run would, but for its weights, and the training step around it."""
    import torch

    from loralab.data.plan import StepPlan
    from loralab.model.attention import enable_document_attention
    from loralab.model.checkpointing import recompute_layers
    from loralab.model.faster import run_faster
    from loralab.model.lora import attach_adapter
    from loralab.model.offloading import CudaLink
    from loralab.modules.sft import SFTModule

    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    base = random_base(config, device, dtype)
    link = CudaLink() if config.trainer.offload_activations else None
    recompute_layers(base, config.trainer.gradient_checkpointing, link)
    enable_document_attention(base, config.trainer.speed.block_attention)
    model = attach_adapter(base, config.lora, config.seed)
    module = SFTModule(model, StepPlan(1000, 1, 1, 1000, 1, 0), config, dtype)
    run_faster(model, config.trainer.speed)
    optimizer = module.configure_optimizers()
    # What Lightning does around a step, without Lightning.
    module.optimizers = lambda: optimizer
    module.manual_backward = lambda loss: loss.backward()
    return module.train()


def random_base(config: "TrainConfig", device: Any, dtype: Any) -> Any:
    """Makes a base with random weights on a device; only one layer's weights ever exist in 16 bits."""
    import torch
    from bitsandbytes.nn import Params4bit
    from bitsandbytes.nn.modules import Linear4bit
    from torch import nn
    from transformers import AutoConfig

    from loralab.model.load import skeleton
    from loralab.model.quantize import keep_cpu_gradients
    from loralab.model.shadow import quantize_shadow

    model_config = AutoConfig.for_model(**config.model.architecture)
    model = skeleton(config.model, model_config).to(dtype)
    model.set_attn_implementation("sdpa")
    quantize_shadow(model, config.quant, dtype)
    generator = torch.Generator(device).manual_seed(config.seed)
    packed = {id(layer.weight): layer for layer in model.modules() if isinstance(layer, Linear4bit)}
    for module in list(model.modules()):
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            layer = packed.get(id(parameter))
            shape = parameter.shape if layer is None else (layer.out_features, layer.in_features)
            weight = torch.ones(shape, device=device, dtype=dtype)
            if weight.ndim > 1:
                weight.normal_(0, model_config.initializer_range, generator=generator)
            made: Any = nn.Parameter(weight, requires_grad=False)
            if layer is not None:
                made = Params4bit(
                    weight,
                    requires_grad=False,
                    compress_statistics=config.quant.double_quant,
                    quant_type=config.quant.name,
                    module=layer,
                ).to(device)
            module._parameters[name] = made
    decoder = model.model
    decoder.rotary_emb = type(decoder.rotary_emb)(config=model_config).to(device)
    model.tie_weights()
    keep_cpu_gradients(model)
    return model


def step_batch(module: "SFTModule", config: "TrainConfig", device: Any) -> "StepBatch":
    """Packs random documents, all of whose tokens but the first are learned, into the rows of a step."""
    import torch
    from lightning.fabric.utilities import move_data_to_device

    from loralab.data.collate import MicroBatch, StepBatch
    from loralab.data.masking import IGNORE_INDEX

    rows, length = int(config.trainer.batch_size), config.data.max_length
    document = min(DOCUMENT, length // 2)
    vocabulary = config.model.architecture["vocab_size"]
    generator = torch.Generator().manual_seed(config.seed)
    ids = torch.randint(0, vocabulary, (rows, length), generator=generator)
    positions = torch.arange(document).repeat(rows, length // document)
    labels = ids.masked_fill(positions == 0, IGNORE_INDEX)
    bounds = tuple(range(0, rows * length + 1, document))
    batch = MicroBatch(ids, torch.ones_like(ids), labels, position_ids=positions, bounds=bounds)
    learned = batch.num_supervised
    return StepBatch([move_data_to_device(batch, device)], 0, float(learned), learned, rows * length)


def share_of_peak(module: "SFTModule", batch: "StepBatch", seconds: float) -> float | None:
    """Returns the operations of the model in a step over those of the card in its time; None for other cards.

    Those of the model are what `training_flops` counts without recomputation: 4 for each token and weight of
    the linear layers, 4 for each learned token and weight of the head, and 12 x layers x width x document for
    each token in attention, as if no key were masked.
    """
    import torch

    from loralab.model.load import skeleton
    from loralab.model.size import measure_model
    from loralab.model.throughput import training_flops

    name = torch.cuda.get_device_name()
    peak = next((rate for part, rate in BF16_PEAKS.items() if part in name), None)
    if peak is None:
        return None
    base = skeleton(module.config.model, module.model.get_base_model().config)
    flops = training_flops(measure_model(base), batch.tokens, DOCUMENT, batch.supervised_tokens)
    return flops / seconds / peak


def _finish(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to_markdown(report: dict[str, Any]) -> str:
    """Lays the figures out as a table."""
    lines = [
        "# Training on a GPU", "", f"{report['machine']['gpu']}; {machine_line(report['machine'])}", "",
        "Llama 3 8B's shape with random weights in NF4 with double quantization, rank 16 on all linear "
        f"layers, AdamW; packed rows of {LENGTH:,} tokens in documents of {DOCUMENT:,}, all of them learned, "
        "one micro-batch a step. Memory is what tensors take at the most; in brackets what PyTorch reserves. "
        "Share of peak: (4 x weights of the linear layers x tokens + 4 x weights of the head x learned "
        "tokens + 12 x layers x width x document x tokens) / time / the card's dense rate in bfloat16; "
        "recomputation counts nothing.", "",
        "| | micro-batch, tokens | tokens/s | goal | peak memory, GiB | goal | share of peak |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    goals = {goal.name: goal for goal in GOALS}
    for run in report["runs"]:
        goal, share = goals[run["goal"]], run["share_of_peak"]
        speed = "" if goal.tokens_per_s is None else f"{goal.tokens_per_s:,.0f}"
        lines.append(
            f"| {run['goal']} | {run['rows'] * LENGTH:,} | {run['tokens_per_s']:,.0f} | {speed} | "
            f"{run['peak_gib']:.2f} ({run['reserved_gib']:.2f}) | {goal.gib:g} | "
            f"{'' if share is None else f'{share:.0%}'} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
