"""What must hold between the options of the `data` group."""

import math
from collections.abc import Iterator
from typing import Any

from loralab.config.data import BenchmarkConfig, DataConfig
from loralab.errors import did_you_mean

FORMATS = (
    "auto", "alpaca", "sharegpt", "openai", "prompt_completion", "question_answer", "prompts", "text",
    "preference", "sharegpt_preference", "unpaired",
)  # fmt: skip
PRIVATE_KINDS = ("email", "phone", "card", "iban", "secret")
RESERVED_BY = {"source": "stratified", "length": "stratified", "near": "grouped"}
"""Values of `data.split.by` that are no field, and the method that they belong to."""
NEEDS_BY = ("stratified", "grouped", "temporal")


def data_faults(data: DataConfig) -> Iterator[str]:
    """Yields every fault of the group that no single value shows."""
    yield from _place_faults(data)
    yield from _source_faults(data)
    yield from _benchmark_faults(data)
    yield from _split_faults(data)
    if not _is_supervise(data.supervise):
        yield (
            f"data.supervise={data.supervise!r} is not allowed. Give assistant, last, all, or a list of "
            "assistant turns such as [1,-1]."
        )
    if isinstance(data.supervise, list) and data.over_length == "cut_oldest":
        yield (
            "data.over_length=cut_oldest would number the turns anew, so data.supervise cannot be a list. "
            "Use data.supervise=last, or another data.over_length."
        )
    template = data.prompt_template
    if template.user is None and (template.system is not None or template.assistant is not None):
        yield "data.prompt_template needs data.prompt_template.user, the template of the request."
    for kind in data.privacy.kinds:
        if kind not in PRIVATE_KINDS:
            hint = did_you_mean(kind, PRIVATE_KINDS)
            yield f"data.privacy.kinds={kind!r} is unknown.{hint} Allowed: {', '.join(PRIVATE_KINDS)}."
    low, high = data.quality.min_tokens, data.quality.max_tokens
    if low is not None and high is not None and low > high:
        yield f"data.quality.min_tokens={low} is above data.quality.max_tokens={high}."


def _place_faults(data: DataConfig) -> Iterator[str]:
    if data.name == "file" and data.path is None and not data.sources:
        yield "data=file needs data.path=FILE (or a folder, a glob, hub:owner/name), or data.sources."
    if data.path is not None and data.sources:
        yield "data.path and data.sources both name training rows. Give one of them."
    if data.name == "calls" and (data.path or data.sources or data.val_path or data.test_path):
        yield "data.path belongs to data=file. Add data=file."
    for part in ("val", "test"):
        share = getattr(data, f"{part}_fraction")
        # What was typed cannot be told; only another value than the default is surely meant.
        if getattr(data, f"{part}_path") is not None and share != getattr(DataConfig, f"{part}_fraction"):
            yield (
                f"data.{part}_fraction={share} has no effect beside data.{part}_path, whose rows are all "
                "used. Leave one of them out."
            )
    for key in ("path", "val_path", "test_path"):
        value = getattr(data, key)
        if value is not None and not is_path(value):
            yield f"data.{key}={value!r} is no path. Give a file, folder, glob, hub:owner/name, or a list."


def _source_faults(data: DataConfig) -> Iterator[str]:
    for number, source in enumerate(data.sources):
        key = f"data.sources[{number}]"
        if source.format is not None and source.format not in FORMATS:
            yield _unknown_form(key, source.format)
        if source.path is None or not is_path(source.path):
            yield f"{key}.path={source.path!r} is no path. Give a file, folder, glob or hub:owner/name."
        for name, low in (("weight", 0), ("rows", 0), ("epochs", 0), ("loss_weight", 0)):
            value = getattr(source, name)
            if value is not None and not low < value < math.inf:
                yield f"{key}.{name}={value} is out of range. Allowed: above 0."
        if source.weight is not None and source.rows is not None:
            yield f"{key} has both weight and rows. Give one of them."
    names = [source.name for source in data.sources if source.name is not None]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"data.sources: two sources are called {name!r}. Give each a name of its own."


def _benchmark_faults(data: DataConfig) -> Iterator[str]:
    benchmarks = data.contamination.benchmarks
    if benchmarks and data.contamination.action == "none":
        yield (
            "data.contamination.benchmarks has no effect with data.contamination.action=none. Use report or "
            "drop, or leave the benchmarks out."
        )
    for number, entry in enumerate(benchmarks):
        key = f"data.contamination.benchmarks[{number}]"
        given = entry if isinstance(entry, BenchmarkConfig) else BenchmarkConfig(path=entry)
        if given.format not in FORMATS:
            yield _unknown_form(key, given.format)
        if not is_path(given.path):
            yield f"{key}.path={given.path!r} is no path. Give a file, folder, glob or hub:owner/name."


def _unknown_form(key: str, form: str) -> str:
    hint = did_you_mean(form, FORMATS)
    return f"{key}.format={form!r} is unknown.{hint} Allowed: {', '.join(FORMATS)}."


def _split_faults(data: DataConfig) -> Iterator[str]:
    method, by = data.split.method, data.split.by
    if method in NEEDS_BY and by is None:
        reserved = [name for name, owner in RESERVED_BY.items() if owner == method]
        choices = " or ".join(["a field of the rows", *reserved])
        yield f"data.split.method={method} needs data.split.by: {choices}."
    if by is not None and method not in NEEDS_BY:
        yield f"data.split.by={by} has no effect with data.split.method={method}. Leave it out."
    if by in RESERVED_BY and method in NEEDS_BY and RESERVED_BY[by] != method:
        yield f"data.split.by={by} belongs to data.split.method={RESERVED_BY[by]}."


def is_path(value: Any) -> bool:
    """Whether a value is a text or a list of texts, none of them empty."""
    listed = value if isinstance(value, list) else [value]
    return bool(listed) and all(isinstance(each, str) and each for each in listed)


def _is_supervise(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("assistant", "last", "all")
    return isinstance(value, list) and bool(value) and all(
        isinstance(turn, int) and not isinstance(turn, bool) and turn != 0 for turn in value
    )  # fmt: skip
