"""How cost grows: speed and peak memory against sequence length, rank, micro-batch, processes and rows.

Trains the embedded model in the compute dtype of this machine with LoRA on all linear layers. A row of
training is one document of exactly its length, nothing packed or padded, so that attention spans all of it.
Each case takes a step to warm up, unless steps are long, and times at least one. Preparation is measured on
synthetic rows. Writes `results/curves.json`, `.md` and `.png`.

    python benchmarks/curves.py
    python benchmarks/curves.py --prepared 1000 10000 100000 1000000     # minutes more
"""

import argparse
import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curve_report import draw, to_markdown
from machine import RESULTS, command_line, describe_machine, write_results
from preparation import stream, write_rows
from process import alone
from training import logged_steps, read_summary, run_folder, speed, train, train_forked

from loralab.runs.allocator import preload

TEXTS = Path(__file__).parents[1] / "src" / "loralab" / "data" / "calls" / "train.jsonl"
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
RANKS = (8, 16, 32, 64, 128)
MICRO_BATCHES = (512, 1024, 2048, 4096, 8192)
PROCESSES = (1, 2)
MOST_TOKENS = 8192
PREPARED = (1_000, 10_000, 100_000)
RANK, ROW, RANK_ROW = 16, 512, 1024
"""Rank of all curves but its own; tokens of a row where length does not vary, and where rank does."""
TIMED_TOKENS, MOST_TIMED = 2048, 3
"""Steps are timed until so many tokens are, but no more steps than that."""
LONG_STEP = 4096
"""Tokens of a step that needs none before it to warm up."""
CHARS_PER_TOKEN = 5
"""More than a token of these texts has: documents are made of so many characters and cut to their length."""
PACKAGES = ("torch", "transformers", "peft", "tokenizers")
COMMON = (
    "data=file", "data.over_length=cut_response", "data.max_dropped=1", "data.cache=false", "quant=none",
    "schedule=constant", "schedule.warmup=0", "eval=none", "eval.watch_prompts=0", "eval.prompt_loss=false",
    "callbacks=quiet", "callbacks.log_every=1", "trainer.accelerator=cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What a step is made of."""

    length: int = ROW
    """Tokens of a row."""
    rows: int = 1
    """Rows of a step, dealt to the processes, each of which takes its own in one micro-batch."""
    rank: int = RANK
    """Rank of the adapter."""
    processes: int = 1
    """Processes that share the cores."""

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.length * self.rows

    @property
    def num_steps(self) -> int:
        """Those to warm up and those that are timed."""
        return self.num_warmup + min(MOST_TIMED, math.ceil(TIMED_TOKENS / self.tokens))

    @property
    def num_warmup(self) -> int:
        """One, but none where a step takes so long that what the first one costs more is nothing."""
        return 0 if self.tokens >= LONG_STEP else 1


def main() -> None:
    """Measures every curve and writes tables and picture."""
    options = parse()
    measured: dict[Case, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        held_out = write_held_out(Path(folder))
        curves = {}
        for name, cases in plan_curves(options.most_tokens).items():
            for case in cases.values():
                if case not in measured:
                    measured[case] = measure(case, Path(folder), held_out)
                    print(measured[case], flush=True)
            curves[name] = [{"x": x, **measured[case]} for x, case in cases.items()]
        curves["prepared_rows"] = [prepare(count, Path(folder)) for count in options.prepared]
    report = {"machine": describe_machine(PACKAGES), "curves": curves}
    draw(curves, RESULTS / "curves.png")
    write_results("curves", report, to_markdown(report))


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command_line(__doc__)
    parser.add_argument(
        "--prepared", type=int, nargs="+", default=PREPARED, help="rows in preparation; several sizes"
    )
    parser.add_argument(
        "--most-tokens", type=int, default=MOST_TOKENS, help="cases with longer steps are left out"
    )
    return parser.parse_args()


def plan_curves(most_tokens: int) -> dict[str, dict[int, Case]]:
    """Returns the cases of each training curve by what varies; curves share some of them."""
    curves = {
        "length": {length: Case(length=length) for length in LENGTHS},
        "rank": {rank: Case(length=RANK_ROW, rank=rank) for rank in RANKS},
        "micro_batch_tokens": {tokens: Case(rows=tokens // ROW) for tokens in MICRO_BATCHES},
        "processes": {count: Case(rows=max(PROCESSES), processes=count) for count in PROCESSES},
    }
    short = {
        name: {x: case for x, case in cases.items() if case.tokens <= most_tokens}
        for name, cases in curves.items()
    }
    return {name: cases for name, cases in short.items() if cases}


def measure(case: Case, folder: Path, held_out: list[str]) -> dict[str, Any]:
    """Trains a case and returns its speed and peak memory.

    Args:
        case: What to train.
        folder: Where runs and rows are kept.
        held_out: Overrides that name validation and test rows.
    """
    name = "-".join(f"{key}{value}" for key, value in asdict(case).items())
    data = write_documents(folder / f"{name}.jsonl", case.length, case.rows * case.num_steps)
    words = [
        *COMMON, *held_out, f"data.path={data}", f"data.max_length={case.length}", f"lora.r={case.rank}",
        f"trainer.batch_size={case.rows // case.processes}", f"trainer.devices={case.processes}",
        f"trainer.max_steps={case.num_steps}", f"trainer.val_every={case.num_steps}",
    ]  # fmt: skip
    (train_forked if case.processes == 1 else train)(words, folder, name)
    steps, summary = logged_steps(run_folder(folder, name)), read_summary(run_folder(folder, name))
    taken = [step["train/tokens"] for step in steps]
    if taken != [case.tokens] * case.num_steps:
        raise SystemExit(f"steps of {taken} tokens instead of {case.num_steps} of {case.tokens}: {words}")
    return {
        **asdict(case),
        "timed_steps": case.num_steps - case.num_warmup,
        "tokens_per_s": round(speed(steps[case.num_warmup :])["tokens_per_s"], 2),
        "peak_gib": summary["memory/peak_gib"],
        "trained": summary["model/trainable_params"],
        "frozen": summary["model/total_params"] - summary["model/trainable_params"],
    }


def write_documents(path: Path, length: int, count: int) -> Path:
    """Writes rows whose answers are longer than `length` tokens, each beginning elsewhere in the texts."""
    lines = TEXTS.read_text().splitlines()
    text = " ".join(turn["content"] for line in lines for turn in json.loads(line)["messages"])
    with path.open("w") as file:
        for number in range(count):
            at = number * len(text) // count
            answer = (text[at:] + text)[: length * CHARS_PER_TOKEN]
            file.write(json.dumps({"prompt": f"Go on from {number}.", "completion": answer}) + "\n")
    return path


def write_held_out(folder: Path) -> list[str]:
    """Writes a row to validate on and one to test on, and returns the overrides that name them."""
    words = []
    for split in ("val", "test"):
        path = folder / f"{split}.jsonl"
        path.write_text(json.dumps({"prompt": f"Which split is this: {split}?", "completion": split}) + "\n")
        words.append(f"data.{split}_path={path}")
    return words


def prepare(count: int, folder: Path) -> dict[str, Any]:
    """Prepares so many synthetic rows and returns its speed and peak memory."""
    path = write_rows(folder / "rows.jsonl", count)
    found = alone(stream, path)
    path.unlink()
    measured = {
        "x": count,
        "seconds": round(found["seconds"], 2),
        "rows_per_s": round(found["rows"] / found["seconds"], 1),
        "peak_gib": round(found["peak_gib"], 3),
    }
    print(measured, flush=True)
    return measured


if __name__ == "__main__":
    preload()
    main()
