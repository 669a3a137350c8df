"""Logging: what the recorder and the loggers take of a step of the embedded model, against 2% allowed.

Trains the default config for a few steps with `metrics.jsonl`, W&B (offline) and TensorBoard at once, and
times the calls of each in the same process. Writes `results/logging.json` and `.md`.

    python benchmarks/logging_cost.py
"""

import functools
import tempfile
import time
from collections import Counter
from typing import Any

import lightning.pytorch as pl
from machine import command_line, describe_machine, machine_line, write_results

STEPS = 25
WARMUP = 5
"""First steps, which are not counted: a whole number of flushes of the recorder."""
ALLOWED = 0.02
RECORDER, LOCAL, OTHERS = "recorder", "metrics.jsonl", ("wandb", "tensorboard")


class Stopwatch(pl.Callback):
    """Adds up the time of calls, and of all steps after the warm-up."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self.spent_s: Counter[str] = Counter()
        self.counted_s: dict[str, float] = {}
        """Time of the calls until the last step was over."""
        self.begun = self.total_s = 0.0

    def time(self, owner: Any, method: str, name: str) -> None:
        """Times a method of an object or a class from now on."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            """Calls the method."""
            begun = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.spent_s[name] += time.perf_counter() - begun

        setattr(owner, method, timed)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begins after the warm-up."""
        if batch_idx == WARMUP:
            self.spent_s.clear()
            self.begun = time.perf_counter()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Ends after the last step and what is logged of it."""
        self.total_s, self.counted_s = time.perf_counter() - self.begun, dict(self.spent_s)


def main() -> None:
    """Measures and writes the table."""
    command_line(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(folder)
    packages = ("torch", "lightning", *OTHERS)
    report = {"machine": describe_machine(packages), "steps": STEPS - WARMUP, "rows": rows}
    write_results("logging", report, to_markdown(report))


def measure(folder: str) -> list[dict[str, Any]]:
    """Trains once and returns what logging takes of a step: alone, and with each further logger."""
    from loralab.callbacks.recorder import Recorder
    from loralab.config.load import compose_train
    from loralab.training import loggers, trainer
    from loralab.training.fit import train

    watch = Stopwatch()

    def build(config: Any, run: Any) -> list[Any]:
        """Builds every logger and times it."""
        built = {LOCAL: loggers.JsonlLogger(run.metrics_path)}
        built |= {name: loggers.BUILDERS[name](config, run) for name in OTHERS}
        for name, logger in built.items():
            watch.time(logger, "log_metrics", name)
        return list(built.values())

    trainer.build_loggers = build
    watch.time(Recorder, "on_train_batch_end", RECORDER)
    words = [
        "logger=wandb", "logger.mode=offline", "callbacks=quiet", "eval=none", "eval.watch_prompts=0",
        f"trainer.max_steps={STEPS}", f"trainer.val_every={STEPS}", f"run.outputs_dir={folder}",
    ]  # fmt: skip
    train(compose_train(words), [watch])
    return shares(watch.counted_s, watch.total_s)


def shares(spent_s: dict[str, float], total_s: float) -> list[dict[str, Any]]:
    """Returns the cost of each choice of `logger`, as if the others had not been there.

    Args:
        spent_s: Time in each logger, and in the recorder with all of them inside.
        total_s: Time of all steps with everything.
    """
    num_steps = STEPS - WARMUP
    own = spent_s[RECORDER] - sum(spent_s[name] for name in (LOCAL, *OTHERS))
    bare = (total_s - spent_s[RECORDER]) / num_steps
    rows = []
    for name in ("local", *OTHERS):
        cost = (own + spent_s[LOCAL] + spent_s.get(name, 0.0)) / num_steps
        rows.append({"logger": name, "cost_s": cost, "step_s": bare + cost, "share": cost / (bare + cost)})
    return rows


def to_markdown(report: dict[str, Any]) -> str:
    """Writes the shares as a table."""
    lines = [
        machine_line(report["machine"]),
        "",
        f"Mean of {report['steps']} steps of the default run; {ALLOWED:.0%} is allowed.",
        "",
        "| `logger` | ms per step in it | ms per step | share |",
        "|---|---|---|---|",
    ]
    for row in report["rows"]:
        cost, step = 1000 * row["cost_s"], 1000 * row["step_s"]
        lines.append(f"| {row['logger']} | {cost:.2f} | {step:.0f} | {row['share']:.2%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
