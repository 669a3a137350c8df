"""What `loralab model quant-report` measures and prints."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from rich.console import Console

from loralab.cli.gathering import gather, open_all
from loralab.cli.quant_request import EMBEDDED, QuantRequest
from loralab.cli.request import Request
from loralab.cli.tables import (
    cells,
    count,
    make_console,
    make_table,
    plural,
    print_removed,
    say,
    show_table,
    total,
)
from loralab.cli.tokens import count_tokens
from loralab.data.collate import MicroBatch
from loralab.data.cutting import MicroBatchSize
from loralab.data.datamodule import EVAL_TOKENS, eval_batches
from loralab.data.tally import Tally
from loralab.data.templating import set_chat_template
from loralab.errors import DataError, ModelError
from loralab.evaluation.quantization import (
    FULL_PRECISION,
    SchemeReport,
    perplexity_rise,
    report_schemes,
)
from loralab.model.hardware import (
    check_quantization,
    dtype_name,
    gpu_capability,
    resolve_device,
    resolve_dtype,
)
from loralab.model.load import check_length, load_config, quiet_libraries, skeleton
from loralab.model.quant_report import KindStorage, LayerStorage, by_kind
from loralab.model.quantize import check_skip_modules
from loralab.model.tokenizer import load_tokenizer

DASH, MIB = "-", 2**20
WIDE_MIB = 100
"""From here on sizes are printed without decimals, so that the tables fit 80 columns."""


def run_quant_report(request: QuantRequest, by_layer: bool, json_path: Path | None) -> None:
    """Measures every scheme, prints tables and writes the file.

    Args:
        request: What to compare.
        by_layer: Print a line for each layer, not for each kind.
        json_path: File to write.

    Raises:
        LoralabError: Something the user must change.
    """
    quiet_libraries()
    if request.trainer.threads is not None:
        torch.set_num_threads(request.trainer.threads)
    console = make_console()
    device = resolve_device(request.trainer.accelerator)
    dtype = resolve_dtype(request.trainer.precision, device)
    config = load_config(request.model)
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError("the model is quantized already. The report compares schemes on full weights.")
    tree = skeleton(request.model, config)
    for quant in request.quants:
        check_quantization(quant.name, gpu_capability(device))
        check_skip_modules(tree, quant)
    named = request.model.path or EMBEDDED
    say(console, f"{named} · {dtype_name(dtype)} on {device.type}", "bold")
    with tempfile.TemporaryDirectory() as folder:
        batches = None
        if request.data is not None:
            check_length(config, request.data.config.max_length)
            batches = _read_rows(console, request, request.data, Path(folder))
        console.print()
        reports = []
        for report in report_schemes(request.model, request.quants, (device, dtype), batches):
            _print_layers(console, report, by_layer)
            reports.append(report)
    _print_summary(console, reports)
    if json_path is not None:
        reference = _full_precision(reports)
        written = {"model": named, "dtype": dtype_name(dtype), "device": device.type}
        found = written | {"schemes": [report.to_dict(reference) for report in reports]}
        json_path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        say(console, f"figures: {json_path}")


def _read_rows(console: Console, request: QuantRequest, data: Request, folder: Path) -> Iterable[MicroBatch]:
    """Prepares rows as training does and says how many are measured."""
    for key in data.idle:
        say(console, f"note: {key} changes nothing here")
    tokenizer = load_tokenizer(request.model)
    set_chat_template(tokenizer, data.config.chat_template)
    gathered = gather(open_all(data), data.config, folder, must_answer=True)
    print_removed(console, total(gathered.tallies))
    counted = count_tokens(gathered.corpus, gathered.alive, tokenizer, data.config, folder)
    print_removed(console, Tally(counted.rows, counted.tally.removed))
    if counted.refusals:
        raise DataError("\n  ".join(counted.refusals))
    store = counted.store
    supervised = f"{store.supervised.sum():,} of {store.lengths.sum():,} tokens supervised"
    say(console, f"{data.sources[0].path}: {plural(len(store), 'row')}, {supervised}")
    return eval_batches(store, MicroBatchSize(tokens=EVAL_TOKENS), int(tokenizer.pad_token_id))


def _print_layers(console: Console, report: SchemeReport, by_layer: bool) -> None:
    """Prints the storage of each layer or kind.

    The title says how they are stored, and a name where that differs: no column does, so that 80 are enough.
    """
    errors = (">error",) if by_layer else (">error", ">lowest", ">highest")
    usual = Counter(layer.scheme for layer in report.layers).most_common(1)[0][0]
    table = make_table(
        "layer" if by_layer else "layers",
        ">parameters",
        ">before",
        ">after",
        ">bits",
        *errors,
        title=f"{report.scheme if usual == report.scheme else f'{report.scheme}: {usual}'}, sizes in MiB",
    )
    rows: list[tuple[str, LayerStorage | KindStorage, tuple[float | None, ...]]] = (
        [(layer.name, layer, (layer.relative_error,)) for layer in report.layers]
        if by_layer
        else [
            (f"{row.kind} x {row.num_layers}", row, (row.error_mean, row.error_min, row.error_max))
            for row in by_kind(report.layers)
        ]
    )
    for name, row, figures in rows:
        differs = "" if row.scheme == usual else f" ({row.scheme})"
        table.add_row(*cells(f"{name}{differs}", *_storage_cells(row), *map(_percent, figures)))
    table.add_section()
    for part in (report.linear, report.other, report.whole):
        table.add_row(*cells(part.name, *_storage_cells(part), *[""] * len(errors)))
    show_table(console, table)


def _storage_cells(row: LayerStorage | KindStorage) -> list[str]:
    return [
        count(row.num_values),
        _mib(row.bytes_full),
        _mib(row.bytes_stored),
        f"{row.bits_per_value:.3f}",
    ]


def _print_summary(console: Console, reports: Sequence[SchemeReport]) -> None:
    table = make_table("scheme", ">bits, linear", ">bits, model", ">MiB", ">error", ">perplexity", ">rise")
    reference = _full_precision(reports)
    for report in reports:
        errors = [layer.relative_error for layer in report.layers if layer.relative_error is not None]
        rise = perplexity_rise(report, reference)
        table.add_row(*cells(
            report.scheme,
            f"{report.linear.bits_per_value:.3f}",
            f"{report.whole.bits_per_value:.3f}",
            _mib(report.whole.bytes_stored),
            _percent(sum(errors) / len(errors)) if errors else DASH,
            DASH if report.perplexity is None else f"{report.perplexity:.3f}",
            DASH if rise is None else f"{rise:+.2%}",
        ))  # fmt: skip
    show_table(console, table)
    if any(layer.relative_error is None for report in reports for layer in report.layers):
        say(console, "note: error -: the checkpoint is not in safetensors, or names the layer otherwise")


def _full_precision(reports: Sequence[SchemeReport]) -> SchemeReport | None:
    return next((report for report in reports if report.scheme == FULL_PRECISION), None)


def _mib(num_bytes: int) -> str:
    mib = num_bytes / MIB
    return f"{mib:,.{0 if mib >= WIDE_MIB else 2}f}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.2%}"
