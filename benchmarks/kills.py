"""Kills: a run that dies by SIGKILL at many random points, one that is stopped once, and one left alone.

Trains a small random model on the embedded task, in processes of their own. The kills fall into steps,
validations, checkpoint writes and any time at all; after each the run is taken up from its folder. Writes
`results/kills.json`, `.md` and the loss curves of the three runs as `kills.png`; fails where they differ.

    python benchmarks/kills.py
"""

import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from killing import ANYTIME, STEP, VALIDATION, WRITE, Kill, disturb, plan_kills, run_process
from machine import RESULTS, command_line, describe_machine, machine_line, write_results

ROWS = Path(__file__).parents[1] / "src" / "loralab" / "data" / "calls" / "train.jsonl"
KILLS = 18
POINTS = (STEP, VALIDATION, WRITE, ANYTIME)
LIMITS = {STEP: (2, 0.05), VALIDATION: (2, 0.03), WRITE: (2, 0.03), ANYTIME: (1, 3.0)}
"""The latest call that is the last, and the most seconds after it has begun."""
ALONE, RESUMED, KILLED = "uninterrupted", "resumed", "disturbed"
STEPS = 60
SEED = 1


def main() -> None:
    """Trains the three runs, compares them and writes the results."""
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=KILLS, help="how many times the disturbed run dies")
    num_kills = parser.parse_args().kills
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder), num_kills)
    report["machine"] = describe_machine(("torch", "lightning", "transformers", "peft"))
    curves = report.pop("curves")
    write_results("kills", report, to_markdown(report))
    draw(curves, RESULTS / "kills.png")
    if any(row["differences"] for row in report["compared"]):
        raise SystemExit("the runs differ")


def measure(folder: Path, num_kills: int) -> dict[str, Any]:
    """Trains the three runs and compares the other two with the one left alone."""
    from loralab.runs.compare import compare_runs, logged_lines
    from loralab.runs.folder import RunFolder
    from loralab.runs.verify import verify_run

    make_model(folder / "model")
    log = folder / "log.txt"
    if (code := run_process(compose(folder, ALONE), None, log)) != 0:
        raise SystemExit(f"{log.read_text()}the run left alone ended with {code}")
    disturb(compose(folder, RESUMED), [Kill(STEP, STEPS // 2, 0.0)], log)
    started, points = time.perf_counter(), [POINTS[number % len(POINTS)] for number in range(num_kills)]
    came = disturb(compose(folder, KILLED), plan_kills(points, SEED, LIMITS), log)
    wall_s = time.perf_counter() - started
    runs = {name: RunFolder(folder / "train" / name) for name in (ALONE, RESUMED, KILLED)}
    compared = [
        {"run": name, "part": each.part, "values": each.num_values, "differences": list(each.differences)}
        for name in (RESUMED, KILLED)
        for each in compare_runs(runs[ALONE], runs[name])
    ]
    return {
        "kills": dict(Counter(came)),
        "steps": STEPS,
        "wall_s": round(wall_s, 1),
        "compared": compared,
        "faults": {name: verify_run(run) for name, run in runs.items()},
        "curves": {name: logged_lines(run.metrics_path) for name, run in runs.items()},
    }


def compose(folder: Path, name: str) -> Any:
    """Composes the config of one of the runs."""
    from loralab.config.load import compose_train

    words = [
        f"model.path={folder / 'model'}", "data=file", f"data.path={ROWS}", "data.max_examples=200",
        "data.test_fraction=0.05", "data.val_fraction=0.1", "quant=none", "lora.dropout=0.1", "eval=none",
        f"trainer.max_steps={STEPS}", "trainer.val_every=5", "trainer.threads=1", "trainer.precision=fp32",
        "trainer.accelerator=cpu", "optim.lr=5e-3", "callbacks=quiet", "callbacks.checkpoint_every=2",
        f"run.outputs_dir={folder}", f"run.name={name}", "resume=auto",
    ]  # fmt: skip
    return compose_train(words)


def make_model(folder: Path) -> None:
    """Writes a random Llama of two layers with the embedded model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from loralab.config.model import ModelConfig
    from loralab.model.load import quiet_libraries
    from loralab.model.tokenizer import load_tokenizer

    quiet_libraries()
    torch.manual_seed(SEED)
    tokenizer = load_tokenizer(ModelConfig())
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def to_markdown(report: dict[str, Any]) -> str:
    """Writes what was killed and what differs as tables."""
    total = sum(report["kills"].values())
    lines = [
        machine_line(report["machine"]),
        "",
        f"{total} SIGKILLs in {report['steps']} steps, {report['wall_s']} s with all restarts:",
        "",
        "| killed shortly after the beginning of a | times |",
        "|---|---|",
        *(f"| {point} | {count} |" for point, count in report["kills"].items()),
        "",
        "| run | part | values | against the uninterrupted one |",
        "|---|---|---|---|",
    ]
    for row in report["compared"]:
        verdict = f"{len(row['differences'])} differ" if row["differences"] else "same bit for bit"
        lines.append(f"| {row['run']} | {row['part']} | {row['values']:,} | {verdict} |")
    faults = {name: found for name, found in report["faults"].items() if found}
    lines += ["", f"`loralab runs verify`: {faults or 'no fault in any of the three'}.", "", "![](kills.png)"]
    return "\n".join(lines) + "\n"


def draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draws the losses of the runs over each other; where they are the same, each hides in the wider one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    styles = zip(curves.items(), (6.0, 3.0, 1.0), ("#b8d4f0", "#e69f00", "#000000"), strict=True)
    for (name, lines), width, color in styles:
        for metric, style in (("train/loss", "-"), ("val/loss", ":")):
            points = [(line["step"], line[metric]) for line in lines if metric in line]
            label = f"{name}, {metric}"
            axes.plot(*zip(*points, strict=True), style, color=color, linewidth=width, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title("one run left alone, one stopped once, one killed again and again")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
