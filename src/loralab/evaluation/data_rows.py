"""The facts about data as the words and numbers that the terminal and the page both show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from loralab.data.report import DataReport, SourceReport
from loralab.data.tally import RemovedRow, Tally
from loralab.evaluation.data_facts import Arrangement, DataFacts, MaskCheck, MixtureLine, PlanFacts
from loralab.runs.memory import GIB

MINUTE, HOUR, DAY = 60, 3600, 86400
MIB = 2**20
SOURCE_COLUMNS = ("source", "part", "form", "rows", "left out", "left out later", "kept")
COUNT_COLUMNS = ("source", "part", "rows", "left out", "left out later", "kept")
"""Columns of the same in numbers alone, for a terminal, whose lines are too short for names of checks."""
SOURCE_NOTE = "left out later: after the split, for overlap, special tokens, template or length"
SPLIT_COLUMNS = (
    "split", "rows", "examples", "tokens", "learned", "share", "median", "longest", "cut", "dropped", "lost",
)  # fmt: skip
LEDGER_COLUMNS = ("source", "rows", "kept", "dropped", "cut", "tokens", "learned", "lost")
MIXTURE_COLUMNS = (
    "source", "examples", "an epoch takes", "each is seen", "never seen", "share", "of the learned",
)  # fmt: skip
MIXTURE_NOTE = (
    "first N rows: no more are read (data.max_examples); share: of the examples of an epoch; of the "
    "learned: of its tokens to learn. Every epoch takes the same examples."
)
CHECK_COLUMNS = (
    "split", "examples", "fewest learned", "looked into", "learned ends", "one BOS", "two BOS",
)  # fmt: skip
WORD_COLUMNS = frozenset((
    "", "source", "part", "form", "left out", "left out later", "split", "kind", "learned ends",
    "each is seen",
))  # fmt: skip
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
    """Lists each source and benchmark under `SOURCE_COLUMNS`."""
    return [
        (_short_name(source), source.part, source.form, f"{source.tally.rows:,}",
         removal_counts(source.tally), removal_counts(source.later),
         f"{source.tally.kept - source.later.num_removed:,}")
        for source in (*report.sources, *report.benchmarks)
    ]  # fmt: skip


def source_counts(report: DataReport) -> list[tuple[str, ...]]:
    """Lists each source and benchmark under `COUNT_COLUMNS`."""
    return [
        (name, part, rows, f"{source.tally.num_removed:,}", f"{source.later.num_removed:,}", kept)
        for source, (name, part, _, rows, *_, kept) in zip(
            (*report.sources, *report.benchmarks), source_rows(report), strict=True
        )
    ]


def source_notes(report: DataReport) -> list[tuple[str, str]]:
    """Says of each source and benchmark how its form was found, and where its reading ended early."""
    notes = []
    for source in (*report.sources, *report.benchmarks):
        if source.limit is not None:
            notes.append((_short_name(source), f"at most {source.limit:,} of its rows (data.max_examples)"))
        if source.reason:
            notes.append((_short_name(source), f"{source.form} ({source.reason})"))
    return notes


def _short_name(source: SourceReport) -> str:
    """The name of a source; of a benchmark, which is named by its path, that of the file."""
    return PurePath(source.name).name if source.part == "benchmark" else source.name


def ledger_rows(report: DataReport) -> list[tuple[str, ...]]:
    """Lists the lengths of each source under `LEDGER_COLUMNS`; nothing where there is one source."""
    ledgers = [(source.name, source.ledger) for source in report.sources if source.ledger is not None]
    if len(ledgers) <= 1:
        return []
    return [
        (name, f"{ledger.rows:,}", f"{ledger.kept:,}", f"{ledger.dropped:,}", f"{ledger.truncated:,}",
         f"{ledger.tokens:,}", f"{ledger.supervised_tokens:,}", f"{ledger.supervised_tokens_lost:,}")
        for name, ledger in ledgers
    ]  # fmt: skip


def removal_counts(tally: Tally) -> str:
    """Lists each kind of removal with its count."""
    counts = ", ".join(f"{removals.count:,} {check}" for check, removals in tally.removed.items())
    return counts or "none"


def removed_groups(report: DataReport) -> list[RemovedGroup]:
    """Lists what each check left out of each source, before the split and after it."""

    def groups(where: str, tally: Tally) -> Iterator[RemovedGroup]:
        """Yields what each check left out in one place."""
        for check, removals in tally.removed.items():
            yield RemovedGroup(where, check, removals.count, removals.examples)

    found: list[RemovedGroup] = []
    for source in (*report.sources, *report.benchmarks):
        found += groups(f"source {source.name}", source.tally)
        for group in groups(f"source {source.name}, after the split", source.later):
            counts = [
                f"{tally.removed[group.check].count:,} {name}"
                for name, tally in source.splits.items()
                if group.check in tally.removed
            ]
            found.append(replace(group, where=f"{group.where}: {', '.join(counts)}"))
    if not any(source.splits for source in report.sources):
        for name, tally in report.splits.items():
            found += groups(f"split {name}", tally)
    return found


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


def finding_groups(report: DataReport) -> list[RemovedGroup]:
    """Lists the first rows with findings of each kind in each source."""
    return [
        RemovedGroup(f"source {source.name}", kind, source.private[kind], examples)
        for source in report.sources
        for kind, examples in source.private_examples.items()
    ]


def finding_line(report: DataReport, action: str) -> str:
    """Says in a line how much personal data was found and what became of it.

    Args:
        report: The account of the rows.
        action: `data.privacy.action`.
    """
    values = sum(sum(source.private.values()) for source in report.sources)
    num_rows = sum(source.private_rows for source in report.sources)
    what = f"{values:,} value{'s' * (values != 1)}"
    if num_rows:
        what += f" in {num_rows:,} row{'s' * (num_rows != 1)}"
    became = {"mask": "replaced", "drop": "left out with the rows"}.get(action, "left as they are")
    return f"{what}: {became} (data.privacy.action={action})"


def mixture_rows(lines: Sequence[MixtureLine]) -> list[tuple[str, ...]]:
    """Lists what an epoch takes of each source under `MIXTURE_COLUMNS`."""
    taken = sum(line.taken for line in lines) or 1
    learned = sum(line.learned for line in lines) or 1
    return [
        (line.label, f"{line.available:,}", f"{line.taken:,}", times_seen(line), f"{line.unused:,}",
         f"{line.taken / taken:.1%}", f"{line.learned / learned:.1%}")
        for line in lines
    ]  # fmt: skip


def times_seen(line: MixtureLine) -> str:
    """Says how often an epoch sees each example of a source, such as `2 to 3 times`."""
    if not line.most:
        return "never"
    if not line.fewest:
        return f"{100 * line.taken / line.available:.3g}% once"
    if line.fewest < line.most:
        return f"{line.fewest:,} to {line.most:,} times"
    return "once" if line.most == 1 else f"{line.most:,} times"


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
    each = f" for each of {plan.num_processes} processes" if plan.num_processes > 1 else ""
    over = ": more than that" if total > plan.free_bytes else ""
    free = f"of {amount(plan.free_bytes)} free here{each}{over}"
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
        Figure("memory, estimated", f"about {amount(total)}", free),
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
