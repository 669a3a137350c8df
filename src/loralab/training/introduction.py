"""What a run says about its data before it trains."""

from rich.console import Console

from loralab.config.schema import TrainConfig
from loralab.data.layout import Layout
from loralab.data.prepare import PreparedData
from loralab.data.tally import Removals, Tally
from loralab.evaluation.data_facts import mixture_lines
from loralab.evaluation.data_rows import finding_line, times_seen


def print_data(console: Console, config: TrainConfig, data: PreparedData, layout: Layout) -> None:
    """Prints how many rows each split has, what is learned, and what was left out or found."""
    train, report = data.train.ledger, data.report
    dropped = sum(ledger.dropped for ledger in report.ledgers.values())
    console.print(
        f"{config.data.name}: {train.kept} train, {data.val.ledger.kept} val, {data.test.ledger.kept} test "
        f"rows · {train.supervised_tokens:,} of {train.tokens:,} training tokens supervised · "
        f"{dropped} rows dropped",
        soft_wrap=True,
    )
    if layout.is_packed:
        console.print(f"packed into {layout.num_units:,} rows, {layout.fill:.1%} filled")
    if mixture := mixture_lines(data, layout):
        taken = (
            f"{line.taken:,} of {line.available:,} from {line.label} ({times_seen(line)})" for line in mixture
        )
        console.print(f"an epoch takes {', '.join(taken)}", soft_wrap=True)
    for line in notices(data, config.data.privacy.action):
        console.print(f"note: {line}", soft_wrap=True)


def notices(data: PreparedData, privacy: str) -> list[str]:
    """Says in a line each what was removed, cut or found in the rows; nothing where there is nothing.

    Args:
        data: What was prepared.
        privacy: `data.privacy.action`.
    """
    report = data.report
    removed = Tally()
    for tally in (*(source.tally for source in report.sources), *report.splits.values()):
        removed.add(tally)
    lines = [
        f"{source.name}: at most {source.limit:,} of its rows (data.max_examples)"
        for source in report.sources
        if source.limit is not None
    ]
    if removed.num_removed:
        lines.append(f"rows left out: {removed.describe()}")
    too_long = removed.removed.get("over_length", Removals()).examples
    # The reason names the policy where it was to keep a part of the row and could not.
    lines += [f"{r.file} {r.place}: {r.reason}" for r in too_long if "data.over_length=" in r.reason][:1]
    cut = sum(ledger.truncated for ledger in report.ledgers.values())
    if cut:
        lost = sum(ledger.supervised_tokens_lost for ledger in report.ledgers.values())
        lines.append(f"{cut:,} rows cut to data.max_length, {lost:,} tokens to learn lost")
    if report.num_overlaps:
        first = report.overlaps[0]
        lines.append(
            f"{report.num_overlaps:,} training rows overlap with rows held out (data.contamination), such as "
            f"{first.file} {first.place}"
        )
    private: dict[str, int] = {}
    for source in report.sources:
        for kind, count in source.private.items():
            private[kind] = private.get(kind, 0) + count
    if private:
        listed = ", ".join(f"{count:,} {kind}" for kind, count in private.items())
        places = (row for s in report.sources for rows in s.private_examples.values() for row in rows)
        where = next((f", such as in {row.file} {row.place}" for row in places), "")
        lines.append(f"personal data: {listed}{where}; {finding_line(report, privacy)}")
    return lines
