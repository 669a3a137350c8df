"""Loading: the host's peak memory while a model is quantized, beside its final size and its largest file.

The rule is a peak of at most 1.3 times the final size plus one file, above what the imported libraries take.
Each measurement runs in a process of its own. Writes `results/loading.json` and `.md`. Linux only.

    python benchmarks/loading.py                  # the embedded model, and a random Llama
    python benchmarks/loading.py --layers 22      # 1.1 billion parameters instead of 0.6
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from machine import command_line, describe_machine, machine_line, write_results
from process import alone

SCHEMES = ("nf4", "int8", "none")
MOST_OVER_FINAL = 1.3
MB = 1e6
NUM_LAYERS = 11
PACKAGES = ("torch", "transformers", "bitsandbytes", "safetensors")


def main() -> None:
    """Runs every measurement and writes the table."""
    parser = command_line(__doc__)
    parser.add_argument("--layers", type=int, default=NUM_LAYERS, help="of the random Llama; 0 leaves it out")
    num_layers = parser.parse_args().layers
    rows = [alone(measure, None, scheme) for scheme in SCHEMES]
    if num_layers:
        with tempfile.TemporaryDirectory() as folder:
            alone(write_llama, folder, num_layers)
            rows += [alone(measure, folder, scheme) for scheme in SCHEMES]
    report = {"machine": describe_machine(PACKAGES), "layers": num_layers, "rows": rows}
    write_results("loading", report, to_markdown(report))


def write_llama(folder: str, num_layers: int) -> None:
    """Writes a Llama with random weights in bfloat16, in files of 400 MB."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=num_layers, num_attention_heads=32,
        num_key_value_heads=4,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="400MB")


def measure(folder: str | None, scheme: str) -> dict[str, Any]:
    """Loads a model once and returns its sizes and the peak in bytes above the libraries.

    Args:
        folder: The model; None is the embedded one.
        scheme: `quant.name`.
    """
    import torch

    from loralab.config.model import ModelConfig, QuantConfig
    from loralab.model.load import load_base, load_config, quiet_libraries
    from loralab.model.location import model_location

    quiet_libraries()
    config = ModelConfig(path=folder)
    load_config(config)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    model = load_base(config, QuantConfig(name=scheme), torch.device("cpu"), torch.bfloat16)
    seconds = time.perf_counter() - started
    peak, final = resident("VmHWM") - before, model.get_memory_footprint()
    shard = max(file.stat().st_size for file in Path(model_location(config)).glob("*.safetensors"))
    return {
        "model": "embedded" if folder is None else "random Llama",
        "scheme": scheme,
        "final_bytes": final,
        "file_bytes": shard,
        "peak_bytes": peak,
        "allowed_bytes": round(MOST_OVER_FINAL * final + shard),
        "wall_s": round(seconds, 1),
    }


def resident(field: str) -> int:
    """Reads a figure of this process from /proc, in bytes: VmRSS is now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def to_markdown(report: dict[str, Any]) -> str:
    """Writes the machine and the measurements as a table."""
    lines = [
        machine_line(report["machine"]),
        "",
        f"The random Llama has {report['layers']} layers of 44 million parameters, the widths of TinyLlama.",
        "",
        "| model | scheme | final MB | file MB | peak MB | allowed MB | s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['scheme']} | {sizes(row)} | {row['wall_s']} |" for row in report["rows"]
    ]
    return "\n".join(lines) + "\n"


def sizes(row: dict[str, Any]) -> str:
    """Writes a measurement's sizes in megabytes, as cells of the table."""
    return " | ".join(f"{row[f'{name}_bytes'] / MB:.0f}" for name in ("final", "file", "peak", "allowed"))


if __name__ == "__main__":
    main()
