"""Memory of training on a CPU: estimated without weights, and measured in a process of its own.

Trains the embedded model in each scheme, with and without gradient checkpointing, on micro-batches of two
sizes; a few cases once more with the allocator of the C library. As no time is measured, several cases run
beside each other, with one thread each. Writes `results/memory.json` and `.md`.

    python benchmarks/memory.py
    python benchmarks/memory.py --rows 1 2 4
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from machine import command_line, describe_machine, machine_line, write_results
from process import bytes_in_use

from loralab.runs.allocator import PRELOAD, preload

SCHEMES = ("nf4", "int8", "none")
ROWS = (1, 2, 4)
WIDTH = 512
SUPERVISED = 256
"""Positions at the end of each row that are learned."""
STEPS = 2
"""The optimizer's state is there from the second step on."""
TARGET = 0.15
"""Largest error that passes, as a share of what is measured."""
BESIDE = tuple({"quant": "nf4", "checkpointing": on, "rows": 4} for on in (False, True))
"""Measured with the allocator of the C library too."""
PADDING = 64
"""Tokens that the last row is shorter by."""
JOBS = min(2, os.cpu_count() or 1)
"""Cases measured at once: each takes up to 3 GiB."""
MIB = 2**20


def main() -> None:
    """Measures every combination and writes the table."""
    options = parse()
    if options.measure is not None:
        case = json.loads(options.measure)
        print(json.dumps(measure(**case) if "rows" in case else count_adapter(**case)))
        return
    cases = [
        {"quant": quant, "checkpointing": checkpointing, "rows": rows, "precision": options.precision}
        for quant, checkpointing, rows in itertools.product(options.schemes, (False, True), options.rows)
    ]
    counted = [{"quant": quant, "precision": options.precision} for quant in options.schemes]
    adapters = dict(zip(options.schemes, together(counted, options.jobs, {PRELOAD: ""}), strict=True))
    runs, beside = [], []
    for case, result in zip(cases, together(cases, options.jobs), strict=True):
        runs.append({**case, **compare(result, adapters[case["quant"]])})
        print(table_row(runs[-1]), flush=True)
    again = [{**each, "precision": options.precision} for each in BESIDE if each["quant"] in options.schemes]
    for case, result in zip(again, together(again, options.jobs, {PRELOAD: ""}), strict=True):
        measured = compare(result, adapters[case["quant"]])["figures_mib"]["step"][1]
        same = next((run for run in runs if {**run, **case} == run), None)
        beside.append({**case, "system_mib": measured, "ours_mib": same and same["figures_mib"]["step"][1]})
        print(beside[-1], flush=True)
    packages = ("torch", "transformers", "peft", "bitsandbytes")
    report = {"machine": describe_machine(packages), "width": WIDTH, "supervised": SUPERVISED, "runs": runs}
    preloaded = [Path(each).name for each in os.environ.get(PRELOAD, "").split(":") if each]
    report |= {"preloaded": preloaded, "beside": beside, "jobs": options.jobs}
    write_results("memory", report, to_markdown(report))


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows of a micro-batch")
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, choices=SCHEMES, help="quantization")
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"), help="as trainer's")
    parser.add_argument("--jobs", type=int, default=JOBS, help="cases beside each other, a thread each")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def together(
    cases: Sequence[dict[str, Any]], num_jobs: int, environment: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Any]:
    """Measures cases, so many at once with one thread each, and yields the results in their order."""
    told = {**environment, "OMP_NUM_THREADS": "1"}
    with ThreadPoolExecutor(num_jobs) as pool:
        yield from pool.map(lambda case: alone(case, told), cases)


def alone(case: dict[str, Any], environment: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Measures a case in a process of its own, which starts with nothing loaded."""
    command = [sys.executable, __file__, "--measure", json.dumps(case)]
    told = {**os.environ, **environment}
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=told)
    return json.loads(finished.stdout.splitlines()[-1])


def measure(quant: str, checkpointing: bool, rows: int, precision: str) -> dict[str, Any]:
    """Estimates and then trains, and returns both, in bytes."""
    import torch

    from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
    from loralab.config.schema import OptimConfig
    from loralab.config.speed import SpeedConfig
    from loralab.model.attention import allow_padding_free
    from loralab.model.faster import run_faster
    from loralab.model.hardware import resolve_dtype
    from loralab.model.load import load_base, load_config, quiet_libraries, skeleton
    from loralab.model.lora import attach_adapter, trainable
    from loralab.model.memory import estimate_memory
    from loralab.model.memory_request import MemoryRequest
    from loralab.optim.build import build_optimizer
    from loralab.optim.master import MasterWeights
    from loralab.runs.allocator import give_back
    from loralab.runs.memory import MemoryMeter

    quiet_libraries()
    device, model_config = torch.device("cpu"), ModelConfig()
    dtype = resolve_dtype(precision, device)
    scheme, lora = QuantConfig(name=quant), LoraConfig()
    bare = skeleton(model_config, load_config(model_config))
    request = MemoryRequest(
        scheme, lora, dtype, rows, WIDTH, rows * SUPERVISED, checkpointing, lengths=lengths(rows)
    )
    estimated = estimate_memory(bare, request, device.type)
    warm_up(dtype)
    meter = MemoryMeter(device)

    def mark(stage: str) -> None:
        """Reads memory that is in use, not what the allocator keeps for later."""
        give_back()
        meter.mark(stage)

    mark("baseline")
    base = load_base(model_config, scheme, device, dtype)
    mark("loaded")
    if checkpointing:
        base.activation_checkpointing_enable()
    allow_padding_free(base)
    model = attach_adapter(base, lora, seed=0).train()
    run_faster(model, SpeedConfig())
    masters = MasterWeights(trainable(model), dtype)
    optimizer = build_optimizer(masters.masters, OptimConfig(), 1e-4)
    mark("adapted")
    for step in range(STEPS):
        train_step(model, masters, optimizer, rows)
        meter.mark("first step" if step == 0 else "steady")
    readings = {each.stage: {"peak": each.peak_gib, "resident": each.resident_gib} for each in meter.readings}
    return {"estimated": estimated.parts, "readings_gib": readings}


def count_adapter(quant: str, precision: str) -> int:
    """Returns the bytes that the adapter and its masters have asked the C library for.

    Resident memory is too coarse for 30 MiB: they take up what loading has left free.
    """
    import torch

    from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
    from loralab.model.hardware import resolve_dtype
    from loralab.model.load import load_base, quiet_libraries
    from loralab.model.lora import attach_adapter, trainable
    from loralab.optim.master import MasterWeights

    quiet_libraries()
    device = torch.device("cpu")
    dtype = resolve_dtype(precision, device)
    base = load_base(ModelConfig(), QuantConfig(name=quant), device, dtype)
    loaded = bytes_in_use()
    masters = MasterWeights(trainable(attach_adapter(base, LoraConfig(), seed=0)), dtype)
    adapted = bytes_in_use()
    assert masters.masters
    return adapted - loaded


def warm_up(dtype: Any) -> None:
    """Trains a tiny model: libraries load code and set kernels up when they are first used."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from loralab.config.model import LoraConfig
    from loralab.config.schema import OptimConfig
    from loralab.model.attention import allow_padding_free
    from loralab.model.lora import attach_adapter, trainable
    from loralab.optim.build import build_optimizer
    from loralab.optim.master import MasterWeights

    tiny = LlamaConfig(
        vocab_size=1024, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2
    )
    base = LlamaForCausalLM(tiny).to(dtype)
    allow_padding_free(base)
    model = attach_adapter(base, LoraConfig(), seed=0).train()
    masters = MasterWeights(trainable(model), dtype)
    train_step(model, masters, build_optimizer(masters.masters, OptimConfig(), 1e-4), rows=2)


def lengths(rows: int) -> tuple[int, ...]:
    """Returns the tokens of each row: one is shorter."""
    return (WIDTH,) * (rows - 1) + (WIDTH - PADDING,)


def train_step(model: Any, masters: Any, optimizer: Any, rows: int) -> None:
    """Takes an optimizer step as training does, on rows of which one is shorter and padded."""
    import torch

    from loralab.data.collate import MicroBatch, without_padding
    from loralab.data.masking import IGNORE_INDEX
    from loralab.modules.sft import token_losses

    ids = torch.randint(0, 1000, (rows, WIDTH))
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[-1, -PADDING:] = 0
    labels[:, :-SUPERVISED] = IGNORE_INDEX
    batch = without_padding(MicroBatch(ids, mask, labels, lengths=lengths(rows)))
    loss = token_losses(model, batch).weighted().sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(masters.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    masters.publish()


def compare(result: dict[str, Any], adapter_bytes: int) -> dict[str, Any]:
    """Sets estimate against measurement, in MiB, for the weights, the adapter, the step and in total."""
    adapter = adapter_bytes / MIB
    parts = {name: size / MIB for name, size in result["estimated"].items()}
    readings = {
        stage: {name: gib * 1024 for name, gib in each.items()}
        for stage, each in result["readings_gib"].items()
    }
    baseline, adapted = (readings[name]["resident"] for name in ("baseline", "adapted"))
    weights = parts["quantized weights"] + parts["unquantized weights"]
    step = sum(parts.values()) - weights - parts["adapters"]
    peak = readings["steady"]["peak"]
    return {
        "parts_mib": parts,
        "readings_mib": readings,
        "figures_mib": {
            "libraries": (baseline, baseline),
            "weights": (weights, adapted - baseline - adapter),
            "adapter": (parts["adapters"], adapter),
            "step": (step, peak - adapted),
            "total": (baseline + sum(parts.values()), peak),
        },
    }


def table_row(run: dict[str, Any]) -> str:
    """Lays a run out as a row of Markdown."""
    figures = [
        f"{estimated:,.0f} / {measured:,.0f} ({estimated / measured - 1:+.0%})"
        for name, (estimated, measured) in run["figures_mib"].items()
        if name != "libraries"
    ]
    return " | ".join([
        f"| {run['quant']}", "on" if run["checkpointing"] else "off", f"{run['rows']} x {WIDTH}",
        f"{run['figures_mib']['libraries'][1]:,.0f}", *figures,
    ]) + " |"  # fmt: skip


def to_markdown(report: dict[str, Any]) -> str:
    """Lays the figures out as a table."""
    errors = [abs(own / real - 1) for own, real in (run["figures_mib"]["total"] for run in report["runs"])]
    lines = [
        "# Memory of training", "", machine_line(report["machine"]), "",
        f"SmolLM2-135M, rank 16 on all linear layers, AdamW, {SUPERVISED} of {WIDTH} tokens learned. "
        f"Estimated / measured in MiB (error); the largest error of a total is {max(errors):.1%}, "
        f"the target {TARGET:.0%}.", "",
        "| quant | checkpointing | micro-batch | libraries | weights | adapter | step | total |",
        "|---|---|---|---|---|---|---|---|",
        *map(table_row, report["runs"]), "",
        "Libraries: resident before anything is loaded. Adapter: what it has asked the C library for. "
        "Weights: growth of resident memory without the adapter. Step: peak of the second step above what "
        "was resident before training. Each case has one thread.", "",
        "| allocator: the step of nf4, 4 rows | C library | as `train.py` starts |",
        "|---|---|---|",
        *(
            f"| checkpointing {'on' if each['checkpointing'] else 'off'} | {each['system_mib']:,.0f} | "
            f"{each['ours_mib'] or math.nan:,.0f} |"
            for each in report["beside"]
        ), "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    if "--measure" not in sys.argv:
        preload()
    main()
