"""Speed of training beside TRL: the same model, rows, LoRA and number of examples.

Trains with `train.py` and with TRL's SFTTrainer, each in a process of its own, and takes the loss of both
adapters on held-out rows with the same code. Also measures what matrix products alone take here, and the
start of the embedded default. Writes `results/throughput.json` and `.md`.

    python benchmarks/throughput.py --data gsm8k_train.jsonl
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import command_line, describe_machine, is_installed, machine_line, write_results
from process import alone
from training import ROOT, logged_steps, read_summary, run_folder, speed, train

TRAIN_ROWS, HELD_OUT_ROWS = 600, 48
LR, RANK, MAX_LENGTH, STEPS = 2e-4, 16, 1024, 3
ROWS = {False: 8, True: 2}
"""Rows of a step, unpacked and packed."""
TARGET, TARGET_SHARE, TARGET_START_S = 3.5, 0.5, 25
"""How many times TRL's speed, which share of the time in bare matrix products, and the seconds of a start."""
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "trl")
PRODUCT_TOKENS = 2048


def main() -> None:
    """Runs every case and writes the table."""
    options = parse()
    rows = options.data.read_text().splitlines()
    has_trl = is_installed("trl")
    with tempfile.TemporaryDirectory() as folder:
        learned, held_out = Path(folder) / "train.jsonl", Path(folder) / "held_out.jsonl"
        learned.write_text("\n".join(rows[:TRAIN_ROWS]) + "\n")
        held_out.write_text("\n".join(rows[TRAIN_ROWS : TRAIN_ROWS + HELD_OUT_ROWS]) + "\n")
        products, start_s = alone(seconds_of_products), default_start_s(Path(folder))
        runs = []
        for quant, packing in itertools.product(options.quants, (False, True)):
            case = {
                "quant": quant, "packing": packing, "rows": ROWS[packing], "steps": options.steps,
                "rank": RANK, "lr": LR, "max_length": MAX_LENGTH, "data": str(learned),
            }  # fmt: skip
            for name in ("loralab", "trl") if has_trl else ("loralab",):
                out = Path(folder) / f"{name}-{quant}-{packing}"
                run = (run_ours if name == "loralab" else run_trl)(case, out)
                run["val_loss"] = alone(held_out_loss, quant, out / "adapter", held_out)
                runs.append({"contender": name, "quant": quant, "packing": packing, **run})
                print(runs[-1], flush=True)
    report = {
        "machine": describe_machine(PACKAGES), "product_s_per_token": products, "default_start_s": start_s,
        "runs": runs,
    }  # fmt: skip
    write_results("throughput", report, to_markdown(report))


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command_line(__doc__, needs_data=True)
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps; the first is not timed")
    parser.add_argument(
        "--quants", nargs="+", default=["none", "nf4"], choices=["none", "nf4"], help="storage"
    )
    return parser.parse_args()


def run_ours(case: dict[str, Any], out: Path) -> dict[str, Any]:
    """Trains with `train.py` as a user would."""
    words = [
        "data=file", f"data.path={case['data']}", "data.columns.prompt=question",
        "data.columns.response=answer", f"data.packing={str(case['packing']).lower()}",
        f"data.max_length={case['max_length']}", f"lora.r={case['rank']}", f"quant={case['quant']}",
        f"optim.lr={case['lr']}", "schedule=constant", "schedule.warmup=0", "eval=none", "callbacks=quiet",
        "callbacks.log_every=1", f"trainer.batch_size={case['rows']}", f"trainer.max_steps={case['steps']}",
        "trainer.precision=bf16", f"trainer.val_every={case['steps']}",
    ]  # fmt: skip
    first_step_s = train(words, out.parent, out.name)
    run = run_folder(out.parent, out.name)
    out.mkdir()
    (run / "adapter").rename(out / "adapter")
    peak_gib = read_summary(run)["memory/peak_gib"]
    return {**speed(logged_steps(run)[1:]), "first_step_s": first_step_s, "peak_gib": peak_gib}


def default_start_s(folder: Path) -> float:
    """Returns the seconds from `python train.py` to its first optimizer step, with warm caches."""
    words = ["trainer.max_steps=1", "eval=none", "callbacks.log_every=1"]
    return [train(words, folder, f"start{number}") for number in range(2)][-1]


def run_trl(case: dict[str, Any], out: Path) -> dict[str, Any]:
    """Trains with TRL."""
    case = {**case, "model": str(embedded_model()), "adapter": str(out / "adapter"), "started": time.time()}
    command = [sys.executable, "benchmarks/rival.py", json.dumps(case)]
    finished = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(finished.stdout.splitlines()[-1])
    return {"tokens_per_s": found.pop("tokens") / found.pop("seconds"), **found}


def embedded_model() -> Path:
    """Returns the folder of the embedded model, unpacked where it is not yet."""
    from loralab.config.model import ModelConfig
    from loralab.model.location import model_location

    return Path(model_location(ModelConfig()))


def held_out_loss(quant: str, adapter: Path, data: Path) -> float:
    """Returns the mean loss of the answers' tokens with an adapter, whoever trained it."""
    import torch

    from loralab.config.data import DataConfig
    from loralab.config.model import ModelConfig, QuantConfig
    from loralab.data.collate import pad_examples
    from loralab.data.prepare import prepare_data
    from loralab.evaluation.perplexity import mean_nll
    from loralab.model.load import load_base, quiet_libraries
    from loralab.model.lora import load_adapter
    from loralab.model.tokenizer import load_tokenizer

    quiet_libraries()
    config, tokenizer = ModelConfig(), load_tokenizer(ModelConfig())
    prepared = prepare_data(DataConfig(name="file", path=str(data), cache=False), tokenizer, seed=0)
    examples = [each for split in (prepared.train, prepared.val, prepared.test) for each in split.examples]
    base = load_base(config, QuantConfig(name=quant), torch.device("cpu"), torch.bfloat16)
    model = load_adapter(base, adapter, torch.bfloat16).eval()
    batches = [pad_examples(examples[at : at + 8], 0) for at in range(0, len(examples), 8)]
    return mean_nll(model, batches).mean


def seconds_of_products() -> dict[str, float]:
    """Returns what bare products with frozen weights take, forward and backward.

    Returns:
        `layers`, the seconds of a token in all linear layers, and `head`, those of one that is learned.
    """
    from loralab.config.model import ModelConfig
    from loralab.model.load import load_config, skeleton
    from loralab.model.quantize import linear_layers

    model = skeleton(ModelConfig(), load_config(ModelConfig()))
    shapes = [tuple(layer.weight.shape) for _, layer in linear_layers(model)]
    seconds = sum(shapes.count(shape) * product_s(*shape) for shape in sorted(set(shapes)))
    head = product_s(model.config.vocab_size, model.config.hidden_size)
    return {"layers": seconds / PRODUCT_TOKENS, "head": head / PRODUCT_TOKENS}


def product_s(out: int, into: int) -> float:
    """Returns the seconds of a layer's product and of its input's gradient: the least of several tries."""
    import torch

    weight = torch.ones(out, into, dtype=torch.bfloat16)
    hidden, gradient = (torch.ones(PRODUCT_TOKENS, n, dtype=torch.bfloat16) for n in (into, out))
    product, of_hidden, taken = torch.empty_like(gradient), torch.empty_like(hidden), []
    for _ in range(10):
        started = time.perf_counter()
        torch.mm(hidden, weight.T, out=product)
        torch.mm(gradient, weight, out=of_hidden)
        taken.append(time.perf_counter() - started)
    return min(taken)


def to_markdown(report: dict[str, Any]) -> str:
    """Lays the figures out as a table."""
    products = report["product_s_per_token"]
    lines = [
        "# Speed of training", "", machine_line(report["machine"]), "",
        f"SmolLM2-135M in bfloat16, rank {RANK} on all linear layers, GSM8K; {ROWS[False]} rows a step, or "
        f"{ROWS[True]} packed rows of {MAX_LENGTH:,} tokens. Useful tokens (no padding) per second of the "
        "steps after the first. Share of products: the part of that time which bare products with the frozen "
        "weights take here at most, forward and backward, those of the layers for every token "
        f"({1 / products['layers']:,.0f} a second) and of the head for learned ones "
        f"({1 / products['head']:,.0f}); in brackets those of the layers alone. Targets: {TARGET} times "
        f"TRL, {TARGET_SHARE:.0%} of products, {TARGET_START_S} s to the first step of the embedded default, "
        f"which took {report['default_start_s']:.1f} s with warm caches.", "",
        "| quant | rows | | tokens/s | learned/s | times TRL | share of products | first step after "
        "| peak memory | loss on held-out rows |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for run in report["runs"]:
        ours, rival = (_same_case(report["runs"], run, name) for name in ("loralab", "trl"))
        times = f"{run['tokens_per_s'] / rival['tokens_per_s']:.2f}" if rival else ""
        # Both train on the same rows.
        learned = run["tokens_per_s"] * ours["supervised_per_s"] / ours["tokens_per_s"]
        layers = run["tokens_per_s"] * products["layers"]
        lines.append(
            f"| {run['quant']} | {'packed' if run['packing'] else 'padded'} | {run['contender']} | "
            f"{run['tokens_per_s']:,.0f} | {learned:,.0f} | {times} | "
            f"{layers + learned * products['head']:.0%} ({layers:.0%}) | "
            f"{run['first_step_s']:.0f} s | {run['peak_gib']:.2f} GiB | {run['val_loss']:.3f} |"
        )
    return "\n".join([*lines, ""])


def _same_case(runs: list[dict[str, Any]], run: dict[str, Any], contender: str) -> dict[str, Any]:
    """Returns the run of a contender with the same storage and rows; an empty one where there is none."""
    case = {"contender": contender, "quant": run["quant"], "packing": run["packing"]}
    return next((each for each in runs if case.items() <= each.items()), {})


if __name__ == "__main__":
    main()
