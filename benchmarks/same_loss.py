"""The same loss: what `trainer.speed` makes faster must not change what is learned.

Trains the embedded model in bfloat16 on the same rows with every option of `trainer.speed` off and with all
that are on by default, from several seeds, which change the order of the rows and the adapter's first
weights. The difference between the two ways at one seed is held against the spread between seeds of the plain
one. Writes `results/same_loss.json`, `.md` and `.png`; fails where the difference is larger than the spread.

    python benchmarks/same_loss.py --data gsm8k_train.jsonl
    python benchmarks/same_loss.py --data gsm8k_train.jsonl --options compile fused_lora
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from machine import RESULTS, command_line, describe_machine, write_results
from same_loss_report import ON, PLAIN, WAYS, draw, judge, to_markdown
from training import logged_steps, read_summary, run_folder, train_forked

from loralab.runs.allocator import preload

SEEDS, STEPS, ROWS, VAL_ROWS = 3, 20, 4, 16
RANK = 16
MOST_CHARS = 500
"""Longer rows, question and answer together, are left out: they would take most of the time."""
AUTO = "auto"
SWITCHES = (("false", "true"), ("off", "on"))
"""Off and on of an option that is a word."""
PACKAGES = ("torch", "transformers", "peft")


def main() -> None:
    """Trains every seed both ways, and compares."""
    options = parse()
    speed_options = find_options()
    chosen = {name: speed_options[name] for name in options.options or usual_options()}
    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(options.data, Path(folder), options.steps * ROWS)
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for seed in range(options.seeds):
            for way in WAYS:
                speed = [f"trainer.speed.{name}={pair[way == ON]}" for name, pair in chosen.items()]
                runs[way].append(measure([*speed, *data], seed, options.steps, Path(folder) / way))
                print(way, f"seed {seed}, val loss {runs[way][-1]['val_loss']:.4f}", flush=True)
    verdict = judge(runs[PLAIN], runs[ON])
    report = {
        "machine": describe_machine(PACKAGES),
        "options": {name: list(pair) for name, pair in chosen.items()},
        "rows": ROWS,
        "runs": runs,
        "verdict": verdict,
    }
    draw(runs, RESULTS / "same_loss.png")
    write_results("same_loss", report, to_markdown(report))
    if not all(each["holds"] for each in verdict):
        raise SystemExit("the options of trainer.speed change the loss by more than the seed does")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command_line(__doc__, needs_data=True)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each way, 2 or more")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of a run")
    parser.add_argument(
        "--options",
        nargs="+",
        choices=sorted(find_options()),
        help="of trainer.speed; else all on by default",
    )
    options = parser.parse_args()
    if options.seeds < 2:  # noqa: PLR2004
        parser.error(f"--seeds {options.seeds}: 2 or more, or there is no spread between them")
    return options


def find_options() -> dict[str, tuple[str, str]]:
    """Returns every switch of `trainer.speed` with its words for off and on; numbers stay as they are.

    What is `auto` by default stays so where it is on: this machine may not have what it needs.
    """
    from loralab.config.speed import SpeedConfig

    defaults = {each.name: getattr(SpeedConfig(), each.name) for each in fields(SpeedConfig)}
    switches = {name: default for name, default in defaults.items() if isinstance(default, bool | str | None)}
    return {
        name: (words_of(name)[0], AUTO) if default == AUTO else words_of(name)
        for name, default in switches.items()
    }


def usual_options() -> list[str]:
    """Returns the options that are on unless they are turned off: `compile` keeps others from running."""
    from loralab.config.speed import SpeedConfig

    return [name for name in find_options() if getattr(SpeedConfig(), name) is not False]


def words_of(name: str) -> tuple[str, str]:
    """Returns what turns an option off and on, of the pairs of `SWITCHES` the first that it takes.

    Raises:
        SystemExit: It takes none of them.
    """
    from loralab.config.load import compose_train
    from loralab.errors import ConfigError

    for pair in SWITCHES:
        try:
            for word in pair:
                compose_train([f"trainer.speed.{name}={word}"])
        except ConfigError:
            continue
        return pair
    raise SystemExit(f"trainer.speed.{name} takes none of {SWITCHES}: add its words for off and on.")


def write_rows(data: Path, folder: Path, num_train: int) -> list[str]:
    """Writes short rows to train, validate and test on, and returns the overrides that name them."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    short = [json.dumps(row) for row in rows if len(row["question"]) + len(row["answer"]) <= MOST_CHARS]
    sizes = {"data.path": num_train, "data.val_path": VAL_ROWS, "data.test_path": 1}
    if len(short) < sum(sizes.values()):
        raise SystemExit(
            f"--data {data}: {len(short)} rows of at most {MOST_CHARS} characters, but "
            f"{sum(sizes.values())} are needed. Take fewer --steps."
        )
    words = ["data=file", "data.columns.prompt=question", "data.columns.response=answer"]
    for key, count in sizes.items():
        path = folder / f"{key}.jsonl"
        path.write_text("\n".join(short[:count]) + "\n")
        short = short[count:]
        words.append(f"{key}={path}")
    return words


def measure(words: Sequence[str], seed: int, num_steps: int, folder: Path) -> dict[str, Any]:
    """Trains once and returns the losses of its steps and of the validation rows at its end."""
    folder.mkdir(exist_ok=True)
    common = [
        f"seed={seed}", f"lora.r={RANK}", "quant=none", "trainer.precision=bf16", "trainer.accelerator=cpu",
        f"trainer.batch_size={ROWS}", f"trainer.max_steps={num_steps}", f"trainer.val_every={num_steps}",
        "eval=none", "eval.watch_prompts=0", "eval.prompt_loss=false", "callbacks=quiet",
    ]  # fmt: skip
    train_forked([*common, *words], folder, f"seed{seed}")
    run = run_folder(folder, f"seed{seed}")
    summary = read_summary(run)
    return {
        "seed": seed,
        "losses": [step["train/loss"] for step in logged_steps(run)],
        "val_loss": summary["val/loss"],
        "wall_s": summary["wall_s"],
    }


if __name__ == "__main__":
    preload()
    main()
