"""Preparation of data: rows per second beside TRL, memory on millions of rows, the second start.

Each measurement runs in a process of its own. Writes `results/preparation.json` and `.md`.

    python benchmarks/preparation.py --data gsm8k_train.jsonl                    # a few minutes on two cores
    python benchmarks/preparation.py --data gsm8k_train.jsonl --rows 2000000     # ten more
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import command_line, describe_machine, is_installed, machine_line, write_results
from process import PeakMemory, alone

STREAMED_ROWS = 100_000
CACHED_ROWS = 50_000
REPEATS = 2
MAX_LENGTH = 2048
PACKAGES = ("torch", "transformers", "tokenizers", "pyarrow", "trl", "datasets")
NO_TRL = "TRL is not installed: not compared."


def main() -> None:
    """Runs every measurement and writes the table."""
    options = parse()
    rows = {"rows_per_s": compare_with_trl(options.data, options.repeats)}
    with tempfile.TemporaryDirectory() as folder:
        rows["second_start"] = alone(
            second_start, write_rows(Path(folder) / "cached.jsonl", options.cached_rows)
        )
        rows["stream"] = alone(stream, write_rows(Path(folder) / "stream.jsonl", options.rows))
    report = {"machine": describe_machine(PACKAGES), **rows}
    write_results("preparation", report, to_markdown(report))


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command_line(__doc__, needs_data=True)
    parser.add_argument("--rows", type=int, default=STREAMED_ROWS, help="synthetic rows to stream")
    parser.add_argument("--cached-rows", type=int, default=CACHED_ROWS, help="rows of the second start")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="runs of each contender")
    return parser.parse_args()


def compare_with_trl(data: Path, repeats: int) -> dict[str, Any]:
    """Prepares the same rows in turn with both, and returns the median rows per second of each."""
    contenders: dict[str, Callable[[Path], dict[str, Any]]] = {
        "loralab": prepare_ours, "loralab, only what TRL does": prepare_ours_plain,
    }  # fmt: skip
    if not is_installed("trl"):
        print(NO_TRL)
    else:
        contenders |= {"trl": prepare_trl, "trl, one process per core": prepare_trl_parallel}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            runs[name].append(alone(contender, data))
    found = {}
    for name, results in runs.items():
        speeds = [each["rows"] / each["seconds"] for each in results]
        found[name] = {"rows": results[0]["rows"], "median": statistics.median(speeds), "runs": speeds}
    return found


def prepare_ours(data: Path, action: str | None = None) -> dict[str, Any]:
    """Reads, cleans, splits, renders, tokenizes and masks; nothing cached."""
    from loralab.config.data import DataConfig
    from loralab.data.prepare import prepare_data

    tokenizer = embedded_tokenizer()
    config = DataConfig(name="file", path=str(data), max_length=MAX_LENGTH, cache=False)
    if action is not None:
        config.privacy.action = config.contamination.action = action
    started = time.perf_counter()
    prepared = prepare_data(config, tokenizer, seed=0)
    seconds = time.perf_counter() - started
    splits = (prepared.train, prepared.val, prepared.test)
    return {"rows": sum(split.ledger.rows for split in splits), "seconds": seconds}


def prepare_ours_plain(data: Path) -> dict[str, Any]:
    """The same without the search for personal data and for overlap, which TRL has not."""
    return prepare_ours(data, action="none")


def prepare_trl(data: Path, num_proc: int | None = None) -> dict[str, Any]:
    """TRL's own preparation of the same rows, already read and in its prompt and completion form."""
    from datasets import Dataset, disable_caching, disable_progress_bars
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    disable_caching()
    disable_progress_bars()
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    dataset = Dataset.from_list([
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }
        for row in rows
    ])  # fmt: skip
    tokenizer = embedded_tokenizer()
    tiny = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    seconds = []
    prepare = SFTTrainer._prepare_dataset

    def timed(*arguments: Any, **named: Any) -> Any:
        """Prepares as TRL does and notes the seconds."""
        started = time.perf_counter()
        prepared = prepare(*arguments, **named)
        seconds.append(time.perf_counter() - started)
        return prepared

    SFTTrainer._prepare_dataset = timed
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, max_length=MAX_LENGTH, report_to=[], use_cpu=True, dataset_num_proc=num_proc
        )
        SFTTrainer(
            model=LlamaForCausalLM(tiny), args=settings, train_dataset=dataset, processing_class=tokenizer
        )
    return {"rows": len(rows), "seconds": sum(seconds)}


def prepare_trl_parallel(data: Path) -> dict[str, Any]:
    """The same in a process for each core."""
    return prepare_trl(data, num_proc=os.cpu_count())


def second_start(data: Path) -> dict[str, Any]:
    """Prepares rows, then opens them again from the cache."""
    from loralab.config.data import DataConfig
    from loralab.data.prepare import prepare_data

    tokenizer, seconds = embedded_tokenizer(), []
    config = DataConfig(name="file", path=str(data), max_length=MAX_LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LORALAB_CACHE"] = folder
        for _ in range(2):
            started = time.perf_counter()
            prepared = prepare_data(config, tokenizer, seed=0)
            assert prepared.train.examples[0].input_ids
            seconds.append(time.perf_counter() - started)
    first, second = seconds
    return {"rows": sum(1 for _ in data.open()), "first_s": first, "second_s": second}


def stream(data: Path) -> dict[str, Any]:
    """Reads, filters, removes exact duplicates, tokenizes and packs rows that come from disk."""
    from loralab.config.data import DataConfig
    from loralab.data.datamodule import make_layout
    from loralab.data.prepare import prepare_data

    tokenizer = embedded_tokenizer()
    config = DataConfig(name="file", path=str(data), max_length=MAX_LENGTH, cache=False)
    peak = PeakMemory()
    started = time.perf_counter()
    with peak:
        prepared = prepare_data(config, tokenizer, seed=0)
        prepared_s = time.perf_counter() - started
        layout = make_layout(prepared, 0, MAX_LENGTH, None)
        fill = layout.fill
    (source,) = prepared.report.sources
    return {
        "rows": source.tally.rows,
        "kept": source.tally.kept,
        "duplicates": source.tally.removed["duplicate"].count,
        "seconds": prepared_s,
        "pack_s": time.perf_counter() - started - prepared_s,
        "packed_rows": layout.num_units,
        "fill": fill,
        "peak_gib": peak.gib,
    }


def write_rows(path: Path, count: int) -> Path:
    """Writes synthetic prompt and completion rows; one in twenty repeats an earlier one."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    recent: list[str] = []
    with path.open("w") as file:
        for number in range(count):
            if recent and number % 20 == 0:
                line = rng.choice(recent)
            else:
                prompt = " ".join(rng.choices(words, k=rng.randint(5, 20)))
                answer = " ".join(rng.choices(words, k=rng.randint(5, 30)))
                line = json.dumps({"prompt": f"{number} {prompt}", "completion": answer}) + "\n"
                recent = [*recent[-99:], line]
            file.write(line)
    return path


def embedded_tokenizer() -> Any:
    """Loads the tokenizer of the embedded model."""
    from loralab.config.model import ModelConfig
    from loralab.model.load import quiet_libraries
    from loralab.model.tokenizer import load_tokenizer

    quiet_libraries()
    return load_tokenizer(ModelConfig())


def to_markdown(report: dict[str, Any]) -> str:
    """Lays the figures out as a table."""
    speed, stream_, second = report["rows_per_s"], report["stream"], report["second_start"]
    ours = speed["loralab"]["median"]
    lines = [
        "# Preparation of data", "",
        machine_line(report["machine"]), "",
        f"| preparation of the same {speed['loralab']['rows']:,} rows | rows per second (median of "
        f"{len(speed['loralab']['runs'])}) | loralab is faster by |", "|---|---|---|",
        *(
            f"| {name} | {each['median']:,.0f} | {ours / each['median']:.2f} |"
            for name, each in speed.items()
        ),
        *(() if any(name.startswith("trl") for name in speed) else ("", NO_TRL)),
        "", "| measurement | figure |", "|---|---|",
        f"| second start, {second['rows']:,} rows | {second['second_s']:.2f} s "
        f"(first {second['first_s']:.1f} s) |",
        f"| streamed, {stream_['rows']:,} rows | {stream_['seconds']:.0f} s, "
        f"{stream_['rows'] / stream_['seconds']:,.0f} rows/s |",
        f"| exact duplicates found | {stream_['duplicates']:,} |",
        f"| packed at {MAX_LENGTH} | {stream_['packed_rows']:,} rows, {stream_['fill']:.2%} filled, "
        f"{stream_['pack_s']:.1f} s |",
        f"| peak resident memory | {stream_['peak_gib']:.2f} GiB |", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
