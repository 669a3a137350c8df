"""The facts about data as the words and numbers that the terminal and the page both show."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loralab.data.report import DataReport
from loralab.data.tally import RemovedRow, Tally
from loralab.evaluation.data_facts import Arrangement, DataFacts, MaskCheck, PlanFacts
from loralab.runs.memory import GIB

MINUTE, HOUR, DAY = 60, 3600, 86400
MIB = 2**20
SOURCE_COLUMNS = ("source", "part", "form", "rows", "left out", "kept")
SPLIT_COLUMNS = (
    "split", "rows", "examples", "tokens", "learned", "share", "median", "longest", "cut", "dropped", "lost",
)  # fmt: skip
CHECK_COLUMNS = (
    "split", "examples", "fewest learned", "looked into", "learned ends", "one BOS", "two BOS",
)  # fmt: skip
WORD_COLUMNS = frozenset(("", "source", "part", "form", "left out", "split", "kind", "learned ends"))
"""Columns that hold words, which are aligned to the left."""
SPLIT_NOTE = (
    "learned: tokens that the loss sees; median and longest: tokens of an example; "
    "lost: tokens to learn in what was cut or dropped"
)


@dataclass(frozen=True)
class Figure:
    """One figure of the plan."""

    label: str
    """What it is."""
    value: str
    """The figure with its unit."""
    note: str = ""
    """What it rests on."""


@dataclass(frozen=True)
class RemovedGroup:
    """The rows that one check left out in one place."""

    where: str
    """The source, or the split."""
    check: str
    """The check."""
    count: int
    """How many rows."""
    examples: list[RemovedRow]
    """The first of them."""


def source_rows(report: DataReport) -> list[tuple[str, ...]]:
    """Lists each source under `SOURCE_COLUMNS`."""
    return [
        (source.name, source.part, source.form, f"{source.tally.rows:,}", removal_counts(source.tally),
         f"{source.tally.kept:,}")
        for source in report.sources
    ]  # fmt: skip


def removal_counts(tally: Tally) -> str:
    """Lists each kind of removal with its count."""
    counts = ", ".join(f"{removals.count:,} {check}" for check, removals in tally.removed.items())
    return counts or "none"


def removed_groups(report: DataReport) -> list[RemovedGroup]:
    """Lists what each check left out of each source, and then of each split."""

    def groups(where: str, tally: Tally) -> Iterator[RemovedGroup]:
        for check, removals in tally.removed.items():
            yield RemovedGroup(where, check, removals.count, removals.examples)

    found = [group for source in report.sources for group in groups(f"source {source.name}", source.tally)]
    return found + [
        group for name, tally in report.splits.items() for group in groups(f"split {name}", tally)
    ]


def split_rows(report: DataReport) -> list[tuple[str, ...]]:
    """Lists each split under `SPLIT_COLUMNS`."""
    return [
        (name, f"{ledger.rows:,}", f"{ledger.examples:,}", f"{ledger.tokens:,}",
         f"{ledger.supervised_tokens:,}",
         f"{ledger.supervised_tokens / ledger.tokens:.1%}" if ledger.tokens else "none",
         f"{ledger.length_p50:,.0f}", f"{ledger.length_max:,}", f"{ledger.truncated:,}",
         f"{ledger.dropped:,}", f"{ledger.supervised_tokens_lost:,}")
        for name, ledger in report.ledgers.items()
    ]  # fmt: skip


def finding_rows(report: DataReport) -> list[tuple[str, str, str]]:
    """Lists the findings of personal data by source and kind."""
    return [
        (source.name, kind, f"{count:,}")
        for source in report.sources
        for kind, count in source.private.items()
    ]


def epoch_rows(counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Lists the examples that an epoch takes of each source, and their share."""
    total = sum(counts.values()) or 1
    return [(name, f"{count:,}", f"{count / total:.1%}") for name, count in counts.items()]


def arrangement_line(arrangement: Arrangement, max_length: int) -> str:
    """Says in a line how examples fill rows."""
    units = f"{arrangement.units:,}"
    if arrangement.kind == "packed":
        return f"packed into {units} rows of {max_length:,} tokens, {arrangement.fill:.1%} filled"
    if arrangement.kind == "grouped":
        return f"{units} micro-batches of examples of like length, {arrangement.fill:.1%} filled"
    return f"{units} examples an epoch, one in each row"


def check_rule(bos_token: str) -> str:
    """Says what the gate holds every example to."""
    bos = f", and does not begin with two {bos_token}" if bos_token else ""
    return f"Every example learns a token, and learns its stop token unless it was cut{bos}; counted again:"


def check_rows(facts: DataFacts) -> list[tuple[str, ...]]:
    """Lists for each split under `CHECK_COLUMNS` what its labels hold."""
    return [
        (check.part, f"{check.examples:,}", f"{check.fewest_learned:,}", f"{check.looked_at:,}",
         _endings(check), f"{check.one_bos:,}", f"{check.double_bos:,}")
        for check in facts.checks
    ]  # fmt: skip


def plan_figures(plan: PlanFacts) -> list[Figure]:
    """Lists what the run would do and take."""
    total = sum(plan.memory_bytes.values())
    over = ": more than that" if total > plan.free_bytes else ""
    return [
        Figure(
            "parameters that train", f"{plan.num_adapter:,}",
            f"{plan.num_adapter / plan.num_parameters:.2%} of {plan.num_parameters:,}",
        ),
        Figure(
            "steps", f"{plan.total_steps:,}", f"{plan.steps_per_epoch:,} per epoch, {plan.epochs:.3g} epochs"
        ),
        Figure("validations", f"{plan.validations:,}", f"every {plan.val_interval:,} steps"),
        Figure(
            "tokens per step", f"{plan.tokens_per_step:,.0f}", f"on average, {plan.padding:.1%} of it padding"
        ),
        Figure("time, estimated", f"about {duration(plan.time_s)}", _time_note(plan)),
        Figure(
            "memory, estimated", f"about {amount(total)}", f"of {amount(plan.free_bytes)} free here{over}"
        ),
    ]  # fmt: skip


def memory_rows(plan: PlanFacts) -> list[tuple[str, str]]:
    """Lists the estimated memory by part."""
    return [(part, amount(size)) for part, size in plan.memory_bytes.items()]


def amount(num_bytes: float) -> str:
    """Writes a number of bytes in MiB or GiB."""
    return f"{num_bytes / GIB:,.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:,.0f} MiB"


def duration(seconds: float) -> str:
    """Writes a time to about two digits: seconds, minutes, hours or days."""
    if seconds < MINUTE:
        return f"{max(1, round(seconds))} s"
    for unit, name, above in ((MINUTE, "min", HOUR), (HOUR, "h", 2 * DAY), (DAY, "days", float("inf"))):
        if seconds < above:
            value = seconds / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:,.0f} {name}"  # noqa: PLR2004
    raise AssertionError


def _time_note(plan: PlanFacts) -> str:
    return (
        f"if training reaches {plan.efficiency:.0%} (assumed) of this machine's {rate(plan.flops_per_s)} "
        "(measured); without loading and the comparison at the end"
    )


def rate(flops_per_s: float) -> str:
    """Writes a rate of operations in GFLOP/s or TFLOP/s."""
    giga = flops_per_s / 1e9
    return f"{giga:,.0f} GFLOP/s" if giga < 10_000 else f"{giga / 1000:,.0f} TFLOP/s"  # noqa: PLR2004


def _endings(check: MaskCheck) -> str:
    ends = [f"{count:,} {token}" for token, count in check.endings.items()]
    return ", ".join(ends + ([f"{check.open_ends:,} cut"] if check.open_ends else [])) or "none"
